"""The provider's errors, each as a small `application/problem+json` document (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"

_SCHEMA = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response for an error.

    Args:
        status: HTTP status code, 400 to 599.
        detail: The error as text.
        headers: Further headers, such as `Retry-After`.
    """
    return JSONResponse(_document(status, detail), status, headers, MEDIA_TYPE)


def problem_responses(examples: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of an endpoint's errors, for its `responses=`.

    Args:
        examples: An example of the `detail` for each status code.
    """
    return {
        status: {
            "description": reason_phrase(status),
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "example": _document(status, detail)}},
        }
        for status, detail in examples.items()
    }


def reason_phrase(status: int) -> str:
    """Return the name of `status`; "Unnamed Status" if no RFC names it."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unnamed Status"


def render_problems(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document, including unexpected errors."""
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.add_exception_handler(Exception, _unexpected_problem)


def _document(status: int, detail: str) -> dict[str, str | int]:
    return {"title": reason_phrase(status), "status": status, "detail": detail}


async def _http_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def _validation_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        return problem(400, f"the body is not JSON: {faults[0]['ctx']['error']}")
    return problem(422, "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults))


async def _unexpected_problem(_request: Request, _error: Exception) -> JSONResponse:
    return problem(500, "an unexpected error of the provider; its log has the cause")
