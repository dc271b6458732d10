"""How errors, headers and raw bodies stand in the OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from src.api.errors import MEDIA_TYPE
from src.api.models import FailureRate, MetricIn, ProblemOut

Responses = dict[int | str, dict[str, Any]]

_REF = "#/components/schemas/{model}"

_ERRORS: dict[int, tuple[str, dict[str, str]]] = {
    400: ("The body is unreadable", {"BAD_REQUEST": "The body is not readable JSON"}),
    401: ("The admin key is missing or wrong", {"UNAUTHORIZED": "This endpoint needs the admin key"}),
    403: ("Closed from outside: no admin key is set", {"FORBIDDEN": "Set ADMIN_API_KEY"}),
    413: ("The body is too large", {"PAYLOAD_TOO_LARGE": "The body may be at most 5242880 bytes"}),
    415: ("The body is of another kind", {"UNSUPPORTED_MEDIA_TYPE": "The body must be application/json"}),
    422: ("Something in the request is wrong", {"VALIDATION_ERROR": "value: Input should be a valid number"}),
    429: (
        "The quota is spent, or the lab is busy; see Retry-After",
        {
            "RATE_LIMIT_EXCEEDED": "Rate limit exceeded",
            "LAB_BUSY": "Another stress test is under way; there is one at a time",
        },
    ),
    500: ("Our fault, and logged", {"INTERNAL_ERROR": "Something went wrong on our side"}),
    503: (
        "Something this needs is away; see Retry-After",
        {
            "REDIS_UNAVAILABLE": "The metric store does not answer",
            "CIRCUIT_OPEN": "The external service is failing and its circuit breaker is open",
            "EXTERNAL_SERVICE_UNAVAILABLE": "The external service did not answer",
        },
    ),
}


def problems(*statuses: int) -> Responses:
    """Return the documentation of the error answers `statuses`, and of the 500 that any route may give."""
    return {status: _problem(status) for status in (*statuses, 500)}


def json_body(model: type[BaseModel], *, many_as: str | None = None) -> dict[str, Any]:
    """Return the documentation of a body that a route reads by itself.

    Args:
        model: What the body is.
        many_as: The body is a JSON array of `model`, or one a line under this media type.
    """
    one = {"$ref": _REF.format(model=model.__name__)}
    if many_as is None:
        content = {"application/json": {"schema": one}}
    else:
        array: dict[str, Any] = {"type": "array", "items": one}
        lines = {"type": "string", "description": f"One {model.__name__} a line"}
        content = {"application/json": {"schema": array}, many_as: {"schema": lines}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    """Add to the OpenAPI document of `app` the schemas that only this module refers to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            models: tuple[type[BaseModel], ...] = (ProblemOut, MetricIn, FailureRate)
            _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
            document["components"]["schemas"].update(schemas["$defs"])
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _problem(status: int) -> dict[str, Any]:
    description, codes = _ERRORS[status]
    examples = {
        code: {
            "value": {
                "type": "about:blank",
                "title": description,
                "status": status,
                "detail": message,
                "code": code,
                "message": message,
                "timestamp": "2026-01-31T12:00:00Z",
                "request_id": "5f0c9e0f6a3b4d0e8f3f4b6a1c2d3e4f",
            }
        }
        for code, message in codes.items()
    }
    schema = {"$ref": _REF.format(model=ProblemOut.__name__)}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}}}
