"""The errors, headers and raw bodies in the OpenAPI document.

A route passes its own fragments to FastAPI as `responses` and `openapi_extra`. `complete` then adds the parts
that all routes have, and the parts that follow from the errors of each route.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from src.api.access.admin_access import AdminClosedError, AdminKeyError
from src.api.errors import (
    BAD_JSON,
    INTERNAL_ERROR,
    MEDIA_TYPE,
    RATE_LIMIT_EXCEEDED,
    Problem,
    error_problem,
    problem_document,
    validation_problem,
)
from src.api.models.external_service import FailureRate, FaultChangesIn
from src.api.models.lifecycle import RetentionRule
from src.api.models.metrics import MetricIn
from src.api.models.problem import ProblemOut
from src.api.models.proxy import ProxyPolicy
from src.api.requests.body import MAX_OBJECT_BYTES
from src.resilience.errors import CircuitOpenError, QueueClosedError, QueueFullError, QueueTimeoutError
from src.services.errors import StorageUnavailableError
from src.services.external_service import ExternalServiceUnavailableError
from src.services.metrics.ingest import CardinalityLimitError, IdempotencyKeyReusedError, PointRejection
from src.services.proxy.upstream import UpstreamAnswerTooLargeError

Fragment = dict[str, Any]
Responses = dict[int | str, Fragment]

_REFERENCE = "#/components/schemas/{model}"

ADMIN_ERRORS = ("UNAUTHORIZED", "FORBIDDEN")
"""The errors of every route for admins."""

BODY_ERRORS = ("BAD_REQUEST", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "VALIDATION_ERROR")
"""The errors of every route that reads one JSON object."""

_PROBLEMS = {
    problem.code: problem
    for problem in (
        BAD_JSON,
        error_problem(AdminKeyError()),
        error_problem(AdminClosedError()),
        Problem(
            413,
            "PAYLOAD_TOO_LARGE",
            f"The body may be at most {MAX_OBJECT_BYTES} bytes, before and after inflation",
        ),
        Problem(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json, in UTF-8"),
        validation_problem([{"field": "value", "message": "Input should be a valid number"}]),
        error_problem(IdempotencyKeyReusedError()),
        error_problem(CardinalityLimitError(PointRejection(0, "type", "there are 10000 types already"))),
        replace(RATE_LIMIT_EXCEEDED, retry_after=1),
        INTERNAL_ERROR,
        error_problem(CircuitOpenError("external-service", "open", retry_after=30)),
        error_problem(ExternalServiceUnavailableError()),
        error_problem(StorageUnavailableError("unavailable")),
        error_problem(UpstreamAnswerTooLargeError(10 * 1024 * 1024)),
        error_problem(QueueFullError("proxy", "full", retry_after=43)),
        error_problem(QueueClosedError("proxy", "closed", retry_after=1)),
        error_problem(QueueTimeoutError(60)),
    )
}

_DESCRIPTIONS = {
    400: "The request is unreadable",
    401: "The admin key is missing or wrong",
    403: "No admin key is set, so only clients on the service's own machine are accepted",
    413: "The body is too large",
    415: "The media type or encoding of the body is not supported",
    422: "The request is invalid",
    429: "A limit is reached; Retry-After says when to retry",
    500: "An unexpected error of the service",
    502: "The proxy cannot pass on the upstream's answer",
    503: "Something that the request needs is unavailable; Retry-After says when to retry",
    504: "The request waited too long for the upstream",
}

_REQUEST_HEADERS: dict[str, Fragment] = {
    "Idempotency-Key": {
        "description": "Requests with the same key are executed once. A key is kept for 24 hours",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    "Content-Encoding": {
        "description": "The compression of the body",
        "schema": {"type": "string", "enum": ["gzip"]},
    },
    "If-None-Match": {
        "description": "The ETag of the client's copy. The answer is 304 if the copy is current",
        "schema": {"type": "string"},
    },
    "client-id": {
        "description": "Identifies the caller in the logs of this service and of the upstream",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:@/-]{1,128}$"},
    },
    "Cache-Control": {
        "description": "no-cache: the cached answer is not used",
        "schema": {"type": "string", "enum": ["no-cache"]},
    },
}


def _header(description: str, example: str | int) -> Fragment:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "schema": {"type": kind}, "example": example}


_ANSWER_HEADERS = {
    "X-Request-ID": _header(
        "Identifies the request in the logs. A valid id that the client sent is kept", "trace-1"
    ),
    "Retry-After": _header("Seconds after which the same request would be admitted", 42),
    "RateLimit-Policy": _header(
        "The quota: the number of requests, and the window in seconds", '"ingest";q=10;w=60'
    ),
    "RateLimit": _header(
        "The remaining requests, and the seconds until the whole quota is available. This header and the "
        "X-RateLimit headers are absent while Redis is unavailable",
        '"ingest";r=9;t=60',
    ),
    "X-RateLimit-Limit": _header("The number of requests in a window", 10),
    "X-RateLimit-Remaining": _header("The remaining requests", 9),
    "X-RateLimit-Reset": _header("Unix time in seconds when the whole quota is available", 1_769_860_860),
    "Idempotency-Replayed": _header("true: the request was executed before", "true"),
    "X-Cache": _header("MISS: a new answer. HIT: a cached answer. STALE: the last good answer", "HIT"),
    "X-Queue-Wait-Ms": _header("Milliseconds that the request spent in the queue", 1020),
    "Age": _header("The age of the answer in seconds", 12),
    "ETag": _header("The tag to send as If-None-Match", '"6f1c3d0a9b2e4f5a7c8d9e0f"'),
    "Cache-Control": _header("How long the client may keep the answer", "private, max-age=288"),
    "Location": _header("The address of the redirect", "dashboard"),
    "Vary": _header("The request header that determines the form of the answer", "Accept"),
    "Link": _header(
        "The address of the next page; absent on the last page", '</api/metrics/list?cursor=abc>; rel="next"'
    ),
}

_QUOTA_HEADERS = (
    "RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip

_ADMIN_KEY = "AdminKey"
_ADMIN_KEY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": "X-API-Key",
    "description": "The ADMIN_API_KEY. If no key is set, clients on the service's own machine need none",
}

_EXAMPLE_REQUEST_ID = "5f0c9e0f6a3b4d0e8f3f4b6a1c2d3e4f"
_EXAMPLE_TIME = 1_769_860_800  # 2026-01-31T12:00:00Z


def problems(*errors: str | Problem) -> Responses:
    """Return the documentation of error answers.

    Args:
        errors: The code of an error that several routes have, or a problem of this route alone.
    """
    responses: Responses = {}
    for error in errors:
        problem = _PROBLEMS[error] if isinstance(error, str) else error
        answer = responses.setdefault(problem.status, _problem_answer(problem.status))
        example = orjson.loads(problem_document(problem, _EXAMPLE_REQUEST_ID, _EXAMPLE_TIME))
        _examples(answer)[problem.code] = {"value": example}
    return responses


def headers(*names: str) -> Fragment:
    """Return the documentation of an answer's headers. `complete` adds the headers of all answers."""
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


def request_headers(*names: str) -> Fragment:
    """Return the documentation of headers that a route reads without FastAPI."""
    return {"parameters": [{"name": name, "in": "header", **_REQUEST_HEADERS[name]} for name in names]}


def query_parameters(model: type[BaseModel], *, headers: Sequence[str] = ()) -> Fragment:
    """Return the documentation of a query that a route reads without FastAPI.

    Args:
        model: The model that validates the query.
        headers: The names of headers that the route reads too.
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


def json_body(model: type[BaseModel]) -> Fragment:
    """Return the documentation of a JSON body that a route reads without FastAPI.

    Args:
        model: The model of the body. The examples of its schema are the examples of the body.
    """
    example = model.model_json_schema()["examples"][0]
    return _request_body({"application/json": {"schema": _reference(model), "example": example}})


def json_batch_body(model: type[BaseModel], lines_media_type: str) -> Fragment:
    """Return the documentation of a body with many items: a JSON array, or one item per line.

    Args:
        model: The model of an item. The examples of its schema are the examples of the body.
        lines_media_type: The media type of a body with one item per line.
    """
    examples = model.model_json_schema()["examples"]
    array: Fragment = {"type": "array", "items": _reference(model)}
    return _request_body(
        {
            "application/json": {"schema": array, "example": examples},
            lines_media_type: ndjson_lines(model, examples),
        }
    )


def _request_body(content: Fragment) -> Fragment:
    return {"requestBody": {"required": True, "content": content}}


def ndjson_lines(model: type[BaseModel], examples: Sequence[Fragment]) -> Fragment:
    """Return the documentation of content with one `model` per line, as JSON."""
    text = "".join(f"{orjson.dumps(example).decode()}\n" for example in examples)
    return {"schema": {"type": "string", "description": f"One {model.__name__} per line"}, "example": text}


def complete(document: Fragment) -> Fragment:
    """Return FastAPI's `document` with the parts of all routes and the referenced schemas."""
    for methods in document["paths"].values():
        for operation in methods.values():
            _complete_operation(operation)
    components = document["components"]
    components["schemas"].update(_schemas())
    components["headers"] = _ANSWER_HEADERS
    components["securitySchemes"] = {_ADMIN_KEY: _ADMIN_KEY_SCHEME}
    return document


def _complete_operation(operation: Fragment) -> None:
    """Add the 500 answer, which any route may give, and the parts that follow from the route's errors."""
    answers: Fragment = operation["responses"]
    answers |= {str(status): answer for status, answer in problems(INTERNAL_ERROR).items()}
    codes = {code for answer in answers.values() for code in _examples(answer)}
    if "UNAUTHORIZED" in codes:
        operation["security"] = [{_ADMIN_KEY: []}]
    for status, answer in answers.items():
        for content in answer.get("content", {}).values():
            content.pop("itemSchema", None)  # FastAPI adds this member of OpenAPI 3.2 to a 3.1 document
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
    """Return the example of each problem of `answer`, by code."""
    examples: Fragment = answer.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    return examples


def _schemas() -> Fragment:
    """Return the schemas that only this module references."""
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
