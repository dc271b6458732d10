"""Around every request: its id, the error nobody foresaw, and one log line.

Outermost of our middleware, so that whatever happens inside, the answer carries `X-Request-ID`, an
unexpected error becomes a problem document, and the line that is logged says what was really sent.
"""

import re
import uuid
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api import errors
from src.resilience.clock import Clock

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")

_log = structlog.stdlib.get_logger("src.api.access")


class RequestObserver(Protocol):
    """Counts requests."""

    def __call__(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is the path's template, "unmatched" where none matched."""
        ...


def add_headers(scope: Scope, *headers: tuple[bytes, bytes]) -> None:
    """Have `headers` put on the answer to the request of `scope`, whatever it will be."""
    scope.setdefault("extra_headers", []).extend(headers)


class RequestContextMiddleware:
    """The middleware.

    Args:
        app: What it stands around.
        clock: Measures each request.
        observe: Told of each answered request.
    """

    def __init__(self, app: ASGIApp, clock: Clock, observe: RequestObserver) -> None:
        self._app = app
        self._clock = clock
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = self._clock.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id.encode("ascii"))]
                message["headers"] = headers + scope.get("extra_headers", [])
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            _log.exception("unexpected_error", method=scope["method"], path=scope["path"])
            if status:
                raise  # too late to say so: the server cuts the connection
            answer = errors.render(errors.INTERNAL_ERROR, request_id, self._clock.now())
            await answer(scope, receive, send_with_headers)
        finally:
            seconds = self._clock.monotonic() - began
            route = getattr(scope.get("route"), "path", "unmatched")
            self._observe(scope["method"], route, status, seconds)
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round(seconds * 1000, 2),
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.match(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex
