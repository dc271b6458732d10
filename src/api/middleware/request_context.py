"""Around every request: its id and its trace's, the error nobody foresaw, and those who are told of it.

Outermost of our middleware, so that whatever happens inside, the answer carries `X-Request-ID`, an
unexpected error becomes a problem document, and those who are told of the request hear what was really sent.
"""

import re
import secrets
from collections.abc import Sequence
from itertools import count
from typing import Protocol

import structlog
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api import errors
from src.resilience.clock import Clock

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_TRACE_CONTEXT = TraceContextTextMapPropagator()

_log = structlog.stdlib.get_logger(__name__)

_PROCESS = secrets.token_hex(8)
_numbers = count(1)


class RequestObserver(Protocol):
    """Counts requests, or logs them."""

    def __call__(self, method: str, route: str, path: str, status: int, seconds: float) -> None:
        """Take note of one answered request.

        `route` is the template of `path`, "unmatched" where there is none.
        """
        ...


def add_headers(scope: Scope, *headers: tuple[bytes, bytes]) -> None:
    """Have `headers` put on the answer to the request of `scope`, whatever it will be."""
    scope.setdefault("extra_headers", []).extend(headers)


class RequestContextMiddleware:
    """The middleware.

    Args:
        app: What it stands around.
        clock: Measures each request.
        observers: Told of each answered request.
    """

    def __init__(self, app: ASGIApp, clock: Clock, observers: Sequence[RequestObserver]) -> None:
        self._app = app
        self._clock = clock
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, **_trace_id(scope))
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
            for observe in self._observers:
                observe(scope["method"], route, scope["path"], status, seconds)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.match(value):
            return str(value.decode("ascii"))
    return f"{_PROCESS}{next(_numbers):016x}"  # unlike a UUID, at no cost to speak of


def _trace_id(scope: Scope) -> dict[str, str]:
    """Return the `trace_id` to log: of the request's span, else of the caller's trace, where there is one.

    The caller's stands in its W3C `traceparent`, whether or not spans are recorded here.
    """
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        parents = [value for name, value in scope["headers"] if name == b"traceparent"]
        if len(parents) != 1:
            return {}
        parent = _TRACE_CONTEXT.extract({"traceparent": parents[0].decode("latin-1")})
        found = trace.get_current_span(parent).get_span_context()
    return {"trace_id": trace.format_trace_id(found.trace_id)} if found.is_valid else {}
