"""The fast lane: the busiest routes, past the framework's middleware, routing, dependencies and validation.

What it serves stands in FastAPI's router all the same: that is where the documentation comes from, and where
a request goes on to whose lane does not want it. So a lane takes the plain case, which is nearly every one,
and leaves what needs thought, such as a wrong parameter, to the one place that has it (docs/adr/0008).
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from src.api import errors
from src.api.rate_limit import AdmissionName, known_refusal
from src.api.request_context import RequestContext

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route served past the framework.

    Attributes:
        method: The HTTP method.
        path: The whole path; it has no parameters.
        serve: Begins to answer a request, or returns None where the ordinary way is to answer it.
        admission: Which one its requests go through, if any. Who is known to be over its quota is refused at
            the entrance, before anything is begun (docs/adr/0008).
    """

    method: str
    path: str
    serve: Callable[[Request], Awaitable[Response] | None]
    admission: AdmissionName | None = None


class HotRoutesMiddleware:
    """Serves the lanes and hands everything else on.

    Args:
        app: What everything else goes to. It has its own context around it.
        context: What is around each request that is served here.
        lanes: What to serve.
    """

    def __init__(self, app: ASGIApp, context: RequestContext, lanes: Iterable[HotRoute]) -> None:
        self._app = app
        self._context = context
        self._lanes = {(lane.method, lane.path): lane for lane in lanes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        lane = self._lanes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        answer = lane and _begun(lane, scope, receive)
        if not answer:
            await self._app(scope, receive, send)
            return
        began = self._context.begin(scope)
        scope["route"] = lane  # whose path the request is counted under
        status = 0
        try:
            try:
                response = await answer
            except errors.FORESEEN as error:
                response = self._context.render(scope, errors.problem_of(error))
            except Exception:  # noqa: BLE001 -- logged and answered
                response = self._context.render_unexpected(scope)
            response.raw_headers.extend(scope["extra_headers"])
            status = response.status_code
            await response(scope, receive, send)
        finally:
            self._context.end(scope, status, began)


def _begun(lane: HotRoute, scope: Scope, receive: Receive) -> Awaitable[Response] | None:
    try:
        return known_refusal(scope, lane.admission) or lane.serve(Request(scope, receive))
    except Exception:  # noqa: BLE001 -- the ordinary way is still there, and answers whatever goes wrong
        _log.exception("fast_lane_failed")
        return None


class App(FastAPI):
    """An app whose requests come in by the fast lane."""

    entrance: HotRoutesMiddleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self.entrance(scope, receive, send)


def install_hot_routes(app: FastAPI, context: RequestContext, lanes: Iterable[HotRoute]) -> None:
    """Put the fast lane before `app`, even before what FastAPI does with a request first of all.

    The class is changed after the fact, since the app was made by `FastAPIOffline`, which can't be told of
    another one.
    """
    entrance = HotRoutesMiddleware(partial(FastAPI.__call__, app), context, lanes)
    app.__class__ = App
    assert isinstance(app, App)
    app.entrance = entrance
