"""The middleware of every request: its context, its route, and the rendering of errors.

It replaces the middleware of FastAPI and Starlette, which renders errors in three places, with its own texts.
Only FastAPI's tracing runs outside this middleware.
"""

import structlog
from fastapi.telemetry._api import _route_selected
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api import errors
from src.api.hot_routes import HotRouteTable
from src.api.rate_limit import known_rejection
from src.api.request_context import RequestContext
from src.api.responses.ready_response import WHOLE_RESPONSE, parts_of, whole_response

_UNMATCHED = "unmatched"

_log = structlog.stdlib.get_logger(__name__)


class RequestMiddleware:
    """Passes the requests of hot routes to their handlers, and all others to the framework's router.

    Args:
        app: Serves all requests except those of hot routes.
        context: Begins and ends the context of each request.
        hot_routes: The hot routes.
    """

    def __init__(self, app: ASGIApp, context: RequestContext, hot_routes: HotRouteTable) -> None:
        self._app = app
        self._context = context
        self._hot_routes = hot_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Exception: The handler failed after the head of the answer was sent. The server closes the
                connection.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._context.begin(scope)
        route = self._hot_routes.get((scope["method"], scope["path"]))
        sender = _Sender(scope, send)
        try:
            if route is None:
                await self._app(scope, receive, sender.forward)
                return
            if "fastapi.telemetry" in scope:
                # Name the request's span, as FastAPI's router does for all other routes.
                _route_selected(scope=scope, path=route.path)
            rejection = known_rejection(scope, route.admission)
            if rejection is None:
                response = await route.handle(Request(scope, receive))
            else:
                response = self._render(scope, rejection)
            await sender.respond(response)
        except Exception as error:
            problem = errors.error_problem(error)
            where = {"method": scope["method"], "path": scope["path"]}
            if problem is errors.INTERNAL_ERROR:
                _log.exception("unexpected_error", **where)
            elif sender.status:
                _log.error("answer_cut_off", code=problem.code, reason=str(error), **where)
            if sender.status:
                raise
            await sender.respond(self._render(scope, problem))
        finally:
            path = getattr(route or scope.get("route"), "path", _UNMATCHED)
            self._context.end(scope, path, sender.status, began)

    def _render(self, scope: Scope, problem: errors.Problem) -> Response:
        return errors.render(problem, scope["request_id"], self._context.clock.now())


class _Sender:
    """Sends the answer to one request, with the headers that `add_headers` has added.

    Attributes:
        status: The status of the answer; 0 until the head of the answer is sent.
    """

    __slots__ = ("_scope", "_send", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status = 0

    async def respond(self, response: Response) -> None:
        """Send `response`, which is neither a stream nor has a background task."""
        self.status = response.status_code
        scope = self._scope
        headers = [*response.raw_headers, *scope["extra_headers"]]
        body = b"" if scope["method"] == "HEAD" else bytes(response.body)
        message = whole_response(self.status, headers, body)
        if WHOLE_RESPONSE in scope.get("extensions", ()) and "fastapi.telemetry" not in scope:
            await self._send(message)
        else:  # tracing reads the messages that every server understands
            for part in parts_of(message):
                await self._send(part)

    async def forward(self, message: Message) -> None:
        """Send one ASGI message of the framework's answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._scope["extra_headers"]]
        await self._send(message)
