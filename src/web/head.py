"""HEAD for every GET (RFC 9110, section 9.3.2): the same answer, which ends with its head.

Starlette's routes answer HEAD where they answer GET; FastAPI's do not.
"""

from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Passes a HEAD on as the GET that it stands for, unless a route answers HEAD by itself.

    The answer is complete with its head. Servers report a disconnect from then on, which stops a stream.

    Args:
        app: The app behind.
        router: The router of `app`, which says what its routes answer.
    """

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. An error after the head of the answer changes nothing any more."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        is_ended = False

        async def send_head(message: Message) -> None:
            nonlocal is_ended
            if message["type"] == "http.response.start":
                is_ended = True
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        routed = scope if self._is_routed(scope) else {**scope, "method": "GET"}
        try:
            await self._app(routed, receive, send_head)
        except Exception:
            if not is_ended:
                raise
        finally:
            if "route" in routed:
                scope["route"] = routed["route"]

    def _is_routed(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._router.routes)
