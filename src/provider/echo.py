"""`/get`, `/delay`, `/status`: endpoints for trying out a client."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from src.provider.problems import problem, problem_responses, reason_phrase

MAX_DELAY_SECONDS = 60.0

Seconds = Annotated[float, Path(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False, examples=[0.5])]
StatusCode = Annotated[int, Path(ge=200, le=599, examples=[500])]

_BODILESS = frozenset({204, 205, 304})  # RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5


class Echo(BaseModel):
    """A request as it arrived."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "/get",
                    "args": {"page": ["1"]},
                    "headers": {"accept": "*/*", "host": "127.0.0.1:9000"},
                }
            ]
        }
    )

    path: str
    args: dict[str, list[str]]
    headers: dict[str, str]


class Delayed(BaseModel):
    """The delay of the answer in seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"delayed_seconds": 0.5}]})

    delayed_seconds: float


def echo_router(sleep: Callable[[float], Awaitable[None]]) -> APIRouter:
    """Return the endpoints. `sleep` waits for a number of seconds."""
    router = APIRouter(tags=["echo"])

    @router.get("/get", summary="Echo the request")
    async def get(request: Request) -> Echo:
        """Return the path, the query arguments (each with all its values) and the headers of this request."""
        arguments = request.query_params
        return Echo(
            path=request.url.path,
            args={name: arguments.getlist(name) for name in arguments},
            headers=dict(request.headers),
        )

    @router.get(
        "/delay/{seconds}",
        summary="Answer after a delay",
        responses=problem_responses({422: "seconds: Input should be less than or equal to 60"}),
    )
    async def delay(seconds: Seconds) -> Delayed:
        """Wait for `seconds`, 0 to 60, and answer."""
        await sleep(seconds)
        return Delayed(delayed_seconds=seconds)

    @router.get(
        "/status/{code}",
        summary="Answer with a status code",
        response_class=JSONResponse,
        responses={
            200: {"content": {"application/json": {"example": {"title": "OK", "status": 200}}}},
            **problem_responses(
                {
                    422: "code: Input should be less than or equal to 599",
                    500: "the requested status",
                }
            ),
        },
    )
    async def status(code: StatusCode) -> Response:
        """Answer with the status `code`, 200 to 599. From 400 on, the body is a problem document."""
        if code in _BODILESS:
            return Response(status_code=code)
        if code >= 400:
            return problem(code, "the requested status")
        return JSONResponse({"title": reason_phrase(code), "status": code}, code)

    return router
