"""Around every request: its context, its route, and the one place where errors become answers.

Nothing stands around it but FastAPI's tracing, and it takes the place of the middleware that FastAPI and
Starlette would set up: theirs renders errors in three places, in words of its own.
"""

import structlog
from fastapi.telemetry._api import _route_selected
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api import errors
from src.api.hot_routes import HotRouteTable
from src.api.rate_limit import known_refusal
from src.api.request_context import RequestContext
from src.api.whole_response import WHOLE_RESPONSE, parts_of, whole_response

_UNMATCHED = "unmatched"

_log = structlog.stdlib.get_logger(__name__)


class RequestMiddleware:
    """Serves requests: those of hot routes by their handlers, all others by the framework's router.

    Args:
        app: Serves what is no hot route.
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
            Exception: An answer broke off after its head was sent. The server cuts the connection.
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
                # Names the request's span, as FastAPI's router does for all other routes.
                _route_selected(scope=scope, path=route.path)
            refusal = known_refusal(scope, route.admission)
            if refusal is None:
                response = await route.handle(Request(scope, receive))
            else:
                response = self._rendered(scope, refusal)
            await sender.respond(response)
        except Exception as error:
            problem = errors.problem_of(error)
            where = {"method": scope["method"], "path": scope["path"]}
            if problem is errors.INTERNAL_ERROR:
                _log.exception("unexpected_error", **where)
            elif sender.status:
                _log.error("answer_cut_off", code=problem.code, reason=str(error), **where)
            if sender.status:
                raise
            await sender.respond(self._rendered(scope, problem))
        finally:
            path = getattr(route or scope.get("route"), "path", _UNMATCHED)
            self._context.end(scope, path, sender.status, began)

    def _rendered(self, scope: Scope, problem: errors.Problem) -> Response:
        return errors.render(problem, scope["request_id"], self._context.clock.now())


class _Sender:
    """Sends the answer to one request, with the headers that were added to it on the way.

    Attributes:
        status: The status that was sent, 0 as long as none was.
    """

    __slots__ = ("_scope", "_send", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status = 0

    async def respond(self, response: Response) -> None:
        """Send `response`, which is no stream and has nothing to do afterwards."""
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
        """Send a message of the framework's answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._scope["extra_headers"]]
        await self._send(message)
