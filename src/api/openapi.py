"""How errors, headers and raw bodies stand in the OpenAPI document.

A route hands over what is its own, as fragments for `responses` and `openapi_extra`. What holds for every
route, or follows from the errors it names, is added to all of them by `completed`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from src.api.admin_access import AdminClosedError, AdminKeyError
from src.api.body import MAX_OBJECT_BYTES
from src.api.errors import (
    BAD_JSON,
    INTERNAL_ERROR,
    MEDIA_TYPE,
    RATE_LIMIT_EXCEEDED,
    Problem,
    document,
    problem_of,
    validation_problem,
)
from src.api.models.external_service import FailureRate, FaultChangesIn
from src.api.models.lifecycle import RetentionRule
from src.api.models.metrics import MetricIn
from src.api.models.problem import ProblemOut
from src.api.models.proxy import ProxyPolicy
from src.resilience.errors import CircuitOpenError, QueueClosedError, QueueFullError, QueueTimeoutError
from src.services.errors import StorageUnavailableError
from src.services.external_service import ExternalServiceUnavailableError
from src.services.metrics.ingest import CardinalityLimitError, IdempotencyKeyReusedError, PointRejection
from src.services.proxy.upstream import UpstreamAnswerTooLargeError

Fragment = dict[str, Any]
Responses = dict[int | str, Fragment]

_REFERENCE = "#/components/schemas/{model}"

ADMIN_ERRORS = ("UNAUTHORIZED", "FORBIDDEN")
"""Of every route that is for admins."""

BODY_ERRORS = ("BAD_REQUEST", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_ERROR")
"""Of every route that reads one JSON object."""

_PROBLEMS = {
    problem.code: problem
    for problem in (
        BAD_JSON,
        problem_of(AdminKeyError()),
        problem_of(AdminClosedError()),
        Problem(
            413,
            "PAYLOAD_TOO_LARGE",
            f"The body may be at most {MAX_OBJECT_BYTES} bytes, as sent and inflated",
        ),
        Problem(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json, in UTF-8"),
        validation_problem([{"field": "value", "message": "Input should be a valid number"}]),
        problem_of(IdempotencyKeyReusedError()),
        problem_of(CardinalityLimitError(PointRejection(0, "type", "there are 10000 types already"))),
        replace(RATE_LIMIT_EXCEEDED, retry_after=1),
        INTERNAL_ERROR,
        problem_of(CircuitOpenError("external-service", "open", retry_after=30)),
        problem_of(ExternalServiceUnavailableError()),
        problem_of(StorageUnavailableError("away")),
        problem_of(UpstreamAnswerTooLargeError(10 * 1024 * 1024)),
        problem_of(QueueFullError("proxy", "full", retry_after=43)),
        problem_of(QueueClosedError("proxy", "closed", retry_after=1)),
        problem_of(QueueTimeoutError(60)),
    )
}

_DESCRIPTIONS = {
    400: "The body is unreadable",
    401: "The admin key is missing or wrong",
    403: "Closed from outside: no admin key is set",
    413: "The body is too large",
    415: "The body is of another kind",
    422: "Something in the request is wrong",
    429: "No room for it now; see Retry-After",
    500: "Our fault, and logged",
    502: "The upstream's answer can't be passed on",
    503: "Something this needs is away; see Retry-After",
    504: "The upstream's turn or answer did not come in time",
}

_REQUEST_HEADERS: dict[str, Fragment] = {
    "Idempotency-Key": {
        "description": "Makes it safe to send the request again: it is carried out once. Kept for 24 hours",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    "Content-Encoding": {
        "description": "How the body is compressed",
        "schema": {"type": "string", "enum": ["gzip"]},
    },
    "If-None-Match": {
        "description": "The ETag of what is at hand; while it is still right, the answer is 304",
        "schema": {"type": "string"},
    },
    "client-id": {
        "description": "Names the caller in the logs, here and in the upstream",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:@/-]{1,128}$"},
    },
    "Cache-Control": {
        "description": "no-cache: a new answer instead of the cached one",
        "schema": {"type": "string", "enum": ["no-cache"]},
    },
}


def _header(description: str, example: str | int) -> Fragment:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "schema": {"type": kind}, "example": example}


_ANSWER_HEADERS = {
    "X-Request-ID": _header("Names the request in the logs; a sane one that was sent in is kept", "trace-1"),
    "Retry-After": _header("Seconds after which the same request would be let through", 42),
    "RateLimit-Policy": _header("The quota: requests, and seconds of the window", '"ingest";q=10;w=60'),
    "RateLimit": _header(
        "Requests left, and seconds until all of them are. As what follows, not known while Redis is away",
        '"ingest";r=9;t=60',
    ),
    "X-RateLimit-Limit": _header("Requests in a window", 10),
    "X-RateLimit-Remaining": _header("Requests left", 9),
    "X-RateLimit-Reset": _header("Unix time in seconds at which all of them are left again", 1_769_860_860),
    "Idempotency-Replayed": _header("true: the request had been carried out before", "true"),
    "X-Cache": _header("MISS: computed now. HIT: from the cache. STALE: the last good one", "HIT"),
    "X-Queue-Wait-Ms": _header("Milliseconds that the request spent in the queue", 1020),
    "Age": _header("Seconds since it was computed", 12),
    "ETag": _header("For If-None-Match", '"6f1c3d0a9b2e4f5a7c8d9e0f"'),
    "Cache-Control": _header("How long it may be kept", "private, max-age=288"),
    "Location": _header("Where to go", "dashboard"),
    "Vary": _header("The request header that the form of the answer depends on", "Accept"),
    "Link": _header("The next page; absent on the last", '</api/metrics/list?cursor=abc>; rel="next"'),
}

_QUOTA_HEADERS = (
    "RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip

_ADMIN_KEY = "AdminKey"
_ADMIN_KEY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": "X-API-Key",
    "description": "The ADMIN_API_KEY. Where none is set, callers on the service's own machine need none",
}

_EXAMPLE_REQUEST_ID = "5f0c9e0f6a3b4d0e8f3f4b6a1c2d3e4f"
_EXAMPLE_TIME = 1_769_860_800  # 2026-01-31T12:00:00Z


def problems(*errors: str | Problem) -> Responses:
    """Return the documentation of error answers.

    Args:
        errors: Codes of those whose words are the same everywhere, and whole ones of the route's own.
    """
    responses: Responses = {}
    for error in errors:
        problem = _PROBLEMS[error] if isinstance(error, str) else error
        answer = responses.setdefault(problem.status, _problem_answer(problem.status))
        example = orjson.loads(document(problem, _EXAMPLE_REQUEST_ID, _EXAMPLE_TIME))
        _examples(answer)[problem.code] = {"value": example}
    return responses


def headers(*names: str) -> Fragment:
    """Return the documentation of an answer's headers. Those of every answer need no naming."""
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


def request_headers(*names: str) -> Fragment:
    """Return the documentation of headers that a route reads by itself."""
    return {"parameters": [{"name": name, "in": "header", **_REQUEST_HEADERS[name]} for name in names]}


def query_parameters(model: type[BaseModel], *, headers: Sequence[str] = ()) -> Fragment:
    """Return the documentation of a query that a route reads by itself.

    Args:
        model: What the query is read as.
        headers: Headers that the route reads as well.
    """
    schema = model.model_json_schema()
    required = set(schema.get("required", ()))
    query = [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": member.pop("description"),
            "schema": member,
        }
        for name, member in schema["properties"].items()
    ]
    return {"parameters": [*query, *request_headers(*headers)["parameters"]]}


def json_body(model: type[BaseModel], *, many_as: str | None = None) -> Fragment:
    """Return the documentation of a body that a route reads by itself.

    Args:
        model: What the body is. Its schema's examples are the body's.
        many_as: The body is a JSON array of `model`, or one a line under this media type.
    """
    one = _reference(model)
    examples = model.model_json_schema()["examples"]
    if many_as is None:
        content = {"application/json": {"schema": one, "example": examples[0]}}
    else:
        array: Fragment = {"type": "array", "items": one}
        content = {
            "application/json": {"schema": array, "example": examples},
            many_as: ndjson_lines(model, examples),
        }
    return {"requestBody": {"required": True, "content": content}}


def ndjson_lines(model: type[BaseModel], examples: Sequence[Fragment]) -> Fragment:
    """Return the documentation of content with one `model` a line, as JSON."""
    text = "".join(f"{orjson.dumps(example).decode()}\n" for example in examples)
    return {"schema": {"type": "string", "description": f"One {model.__name__} a line"}, "example": text}


def completed(document: Fragment) -> Fragment:
    """Return FastAPI's document with what holds for all routes, and with what the fragments refer to."""
    for methods in document["paths"].values():
        for operation in methods.values():
            _complete(operation)
    components = document["components"]
    components["schemas"].update(_schemas())
    components["headers"] = _ANSWER_HEADERS
    components["securitySchemes"] = {_ADMIN_KEY: _ADMIN_KEY_SCHEME}
    return document


def _complete(operation: Fragment) -> None:
    """Add the answer that any route may give, and what follows from the errors that this one names."""
    answers: Fragment = operation["responses"]
    answers |= {str(status): answer for status, answer in problems(INTERNAL_ERROR).items()}
    codes = {code for answer in answers.values() for code in _examples(answer)}
    if "UNAUTHORIZED" in codes:
        operation["security"] = [{_ADMIN_KEY: []}]
    for status, answer in answers.items():
        for content in answer.get("content", {}).values():
            content.pop("itemSchema", None)  # FastAPI writes it; OpenAPI has it from 3.2 on, and ours is 3.1
        names = ["X-Request-ID"]
        if status in {"429", "503"}:
            names.append("Retry-After")
        if "RATE_LIMIT_EXCEEDED" in codes:
            names.extend(_QUOTA_HEADERS)
        answer.setdefault("headers", {}).update(headers(*names)["headers"])


def _problem_answer(status: int) -> Fragment:
    content = {"schema": _reference(ProblemOut), "examples": {}}
    return {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: content}}


def _examples(answer: Fragment) -> Fragment:
    """Return the problems that `answer` may be, by code."""
    examples: Fragment = answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    return examples


def _schemas() -> Fragment:
    """Return the schemas that only this module refers to."""
    models: tuple[type[BaseModel], ...] = (
        ProblemOut,
        MetricIn,
        FailureRate,
        FaultChangesIn,
        ProxyPolicy,
        RetentionRule,
    )
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    definitions: Fragment = schemas["$defs"]
    return definitions


def _reference(model: type[BaseModel]) -> Fragment:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
