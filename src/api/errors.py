"""Convert errors to `application/problem+json` answers (RFC 9457), with one table and one renderer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from src.analytics.points import format_seconds
from src.api.access.admin_access import AdminClosedError, AdminKeyError
from src.api.responses.ready_response import ReadyResponse
from src.resilience.errors import CircuitOpenError, QueueClosedError, QueueFullError, QueueTimeoutError
from src.services.errors import StorageUnavailableError, WriteUnconfirmedError
from src.services.external_service import ExternalServiceUnavailableError
from src.services.metrics.ingest import CardinalityLimitError, IdempotencyKeyReusedError
from src.services.proxy.target import UnsafeTargetError
from src.services.proxy.upstream import UpstreamAnswerTooLargeError

MEDIA_TYPE = "application/problem+json"
CONTENT_TYPE = MEDIA_TYPE.encode()

_TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Titles from RFC 9110. `http.HTTPStatus` has them since Python 3.13, and older titles before."""

FieldError = dict[str, str | int]
"""The error of one field: its `field` and `message`, and in a batch also the `index` of the point."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The error in an answer.

    Attributes:
        status: HTTP status.
        code: The fixed name of the error.
        message: What happened and, if it helps, what the client can do. It contains no internals.
        retry_after: Seconds after which the client may send the request again; None if the time is not known.
        headers: Further headers, such as `Allow`.
        errors: The errors of the fields; None if no field is at fault.
        extra: Further members of the problem document.
        raw_headers: `headers` and `Retry-After`, as ASGI encodes headers.
    """

    status: int
    code: str
    message: str
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[FieldError] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    raw_headers: tuple[tuple[bytes, bytes], ...] = field(init=False)

    def __post_init__(self) -> None:
        raw_headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()
        ]
        if self.retry_after is not None:
            raw_headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after))))
        object.__setattr__(self, "raw_headers", tuple(raw_headers))


class ProblemError(Exception):
    """An error that the HTTP edge itself raises.

    Args:
        problem: The problem that the client receives.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def validation_problem(errors: Sequence[FieldError]) -> Problem:
    """Return the problem (422) that lists `errors`, of which there is at least one."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    message = f"{first['field']}: {first['message']}{more}"
    return Problem(422, "VALIDATION_ERROR", message, errors=errors)


_FORCED_OPEN_RETRY_SECONDS = 30.0
"""The `Retry-After` while a circuit breaker is forced open. An operator may close it at any time."""

RATE_LIMIT_EXCEEDED = Problem(429, "RATE_LIMIT_EXCEEDED", "Rate limit exceeded")
BAD_JSON = Problem(400, "BAD_REQUEST", "The body is not readable JSON")
INTERNAL_ERROR = Problem(500, "INTERNAL_ERROR", "An unexpected error occurred in the service, and was logged")


_CODES_BY_STATUS = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "VALIDATION_ERROR",
    429: "RATE_LIMIT_EXCEEDED",
}

_MESSAGES_BY_STATUS = {
    404: "This path does not exist",
    405: "This path does not support this method; the Allow header lists the supported methods",
}


def _http_problem(error: HTTPException) -> Problem:
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = _add_head(headers["Allow"])
    code = _CODES_BY_STATUS.get(error.status_code, "BAD_REQUEST")
    message = _MESSAGES_BY_STATUS.get(error.status_code, status_title(error.status_code))
    return Problem(error.status_code, code, message, headers=headers)


def _add_head(methods: str) -> str:
    """Add HEAD to an `Allow` header that contains GET: FastAPI omits HEAD, but the service answers it."""
    allowed = set(methods.split(", "))
    return ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))


_PROBLEM_MAKERS: dict[type[Exception], Callable[[Any], Problem]] = {
    ProblemError: lambda error: error.problem,
    HTTPException: _http_problem,
    RequestValidationError: lambda error: validation_problem(field_errors(error.errors())),
    AdminKeyError: lambda _: Problem(
        401, "UNAUTHORIZED", "This endpoint needs the admin key in the X-API-Key header"
    ),
    AdminClosedError: lambda _: Problem(
        403,
        "FORBIDDEN",
        "Without an admin key, this endpoint accepts only clients on the same machine; "
        "set ADMIN_API_KEY and send it in the X-API-Key header",
    ),
    IdempotencyKeyReusedError: lambda _: Problem(
        422, "IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key was sent before with another request"
    ),
    CardinalityLimitError: lambda error: Problem(
        422,
        "CARDINALITY_LIMIT",
        f"{error.field}: {error}",
        errors=[FieldError(field=error.field, message=str(error))],
    ),
    CircuitOpenError: lambda error: Problem(
        503,
        "CIRCUIT_OPEN",
        f"The circuit breaker '{error.policy}' is open, and there is no earlier answer to use instead",
        retry_after=_FORCED_OPEN_RETRY_SECONDS if error.retry_after is None else error.retry_after,
    ),
    ExternalServiceUnavailableError: lambda error: Problem(
        503,
        "EXTERNAL_SERVICE_UNAVAILABLE",
        f"The service behind '{error.policy}' did not answer, and there is no earlier answer to use instead",
        retry_after=error.retry_after,
    ),
    UnsafeTargetError: lambda error: Problem(400, "BAD_REQUEST", str(error)),
    UpstreamAnswerTooLargeError: lambda error: Problem(
        502,
        "UPSTREAM_ANSWER_TOO_LARGE",
        f"The upstream's answer is longer than the proxy's limit of {error.max_bytes} bytes",
    ),
    QueueFullError: lambda error: Problem(
        503,
        "QUEUE_FULL",
        "The queue for the upstream is full, and there is no earlier answer to use instead",
        retry_after=error.retry_after,
    ),
    QueueClosedError: lambda error: Problem(
        503,
        "QUEUE_CLOSED",
        "This worker is stopping and rejects queued requests, and there is no earlier answer to use instead",
        retry_after=error.retry_after,
    ),
    QueueTimeoutError: lambda error: Problem(
        504,
        "QUEUE_TIMEOUT",
        f"The answer to this request did not begin within {error.seconds:g} s",
        retry_after=error.retry_after,
    ),
    WriteUnconfirmedError: lambda error: Problem(
        503,
        "REDIS_UNAVAILABLE",
        "The metric store did not confirm this write, which may have been stored. Send the request again "
        "with the same Idempotency-Key; without one, a repetition may be stored twice",
        retry_after=error.retry_after,
    ),
    StorageUnavailableError: lambda error: Problem(
        503,
        "REDIS_UNAVAILABLE",
        "The metric store is unavailable, or rejects the request",
        retry_after=error.retry_after,
    ),
}
"""The function that makes the problem of each expected error."""


def field_errors(errors: Sequence[Mapping[str, object]]) -> list[FieldError]:
    """Convert pydantic's errors, and omit the values that the client sent."""
    return [{"field": _field_name(error["loc"]), "message": _field_message(error)} for error in errors]


def _field_message(error: Mapping[str, object]) -> str:
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return "must be a JSON object"  # pydantic's message contains the name of a class
    return str(error["msg"])


def _field_name(location: object) -> str:
    parts = list(location) if isinstance(location, tuple) else []
    if parts and parts[0] in {"body", "query", "path", "header"}:
        parts = parts[1:]
    return ".".join(str(part) for part in parts) or "body"


@cache
def status_title(status: int) -> str:
    """Return the title of an HTTP status, as in RFC 9110."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def problem_document(problem: Problem, request_id: str, now: float) -> bytes:
    """Return the body of the answer for `problem`.

    Args:
        problem: The problem.
        request_id: The id of the request.
        now: Unix time in seconds.
    """
    members: dict[str, object] = {
        "type": "about:blank",
        "title": status_title(problem.status),
        "status": problem.status,
        "detail": problem.message,
        "code": problem.code,
        "message": problem.message,
        "timestamp": format_seconds(now),
        "request_id": request_id,
        **problem.extra,
    }
    if problem.errors is not None:
        members["errors"] = problem.errors
    return orjson.dumps(members)


def render(problem: Problem, request_id: str, now: float) -> Response:
    """Return the answer for `problem`. The arguments are those of `problem_document`."""
    body = problem_document(problem, request_id, now)
    return ReadyResponse(body, problem.status, CONTENT_TYPE, problem.raw_headers)


def error_problem(error: Exception) -> Problem:
    """Return the problem of `error`; `INTERNAL_ERROR` if the error is not expected."""
    for error_class in type(error).__mro__:
        if make_problem := _PROBLEM_MAKERS.get(error_class):
            return make_problem(error)
    return INTERNAL_ERROR
