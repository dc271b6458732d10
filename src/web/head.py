"""HEAD for every GET route (RFC 9110, section 9.3.2): the head of the answer to the GET.

Starlette's GET routes also answer HEAD; FastAPI's routes do not.
"""

from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Passes a HEAD request on as a GET request, unless a route handles HEAD itself.

    The answer ends with its head. After that, servers report a disconnect to the app, which stops a stream.

    Args:
        app: The app that serves the requests.
        router: The router of `app`.
    """

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. An error after the head of the answer is ignored."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def send_head(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        app_scope = scope if self._has_route(scope) else {**scope, "method": "GET"}
        try:
            await self._app(app_scope, receive, send_head)
        except Exception:
            if not is_answered:
                raise
        finally:
            if "route" in app_scope:
                scope["route"] = app_scope["route"]

    def _has_route(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._router.routes)
