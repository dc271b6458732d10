"""The fast lane: the busiest routes, past the framework's routing, dependencies and validation.

What it serves stands in FastAPI's router all the same: that is where the documentation comes from, and where
a request goes on to whose lane does not want it. So a lane takes the plain case, which is nearly every one,
and leaves what needs thought, such as a wrong parameter, to the one place that has it (docs/adr/0008).
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from src.api import errors
from src.api.dependencies import state


@dataclass(frozen=True, slots=True)
class Lane:
    """A route served past the framework.

    Attributes:
        method: The HTTP method.
        path: The whole path; it has no parameters.
        serve: Begins to answer a request, or returns None where the ordinary way is to answer it.
    """

    method: str
    path: str
    serve: Callable[[Request], Awaitable[Response] | None]


class FastLaneMiddleware:
    """Serves the lanes and hands everything else on.

    Args:
        app: What everything else goes to.
        lanes: What to serve.
    """

    def __init__(self, app: ASGIApp, lanes: Iterable[Lane]) -> None:
        self._app = app
        self._lanes = {(lane.method, lane.path): lane for lane in lanes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        lane = self._lanes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        answer = lane and lane.serve(request := Request(scope, receive))
        if not answer:
            await self._app(scope, receive, send)
            return
        scope["route"] = lane  # whose path the request is counted under
        try:
            response = await answer
        except errors.FORESEEN as error:
            now = state(request)["clock"].now()
            response = errors.render(errors.problem_of(error), scope["request_id"], now)
        await response(scope, receive, send)
