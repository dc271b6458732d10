"""Around every request: its id and its trace's, the error nobody foresaw, and those who are told of it.

Whatever happens inside, the answer carries `X-Request-ID`, an unexpected error becomes a problem document,
and those who are told of the request hear what was really sent.
"""

import re
import secrets
from collections.abc import Callable, Sequence
from itertools import count

import structlog
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.api import errors
from src.observation.log_context import log_fields
from src.observation.request_record import RequestRecord
from src.resilience.clock import Clock

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_TRACE_CONTEXT = TraceContextTextMapPropagator()

_log = structlog.stdlib.get_logger(__name__)

_PROCESS = secrets.token_hex(8)
_numbers = count(1)


def add_headers(scope: Scope, *headers: tuple[bytes, bytes]) -> None:
    """Have `headers` put on the answer to the request of `scope`, whatever it will be."""
    scope["extra_headers"].extend(headers)


class RequestContext:
    """What is around each request, wherever it is served.

    Args:
        clock: Measures each request.
        observe: Told of each answered request.
        is_traced: Whether spans are recorded here, so that a request may be in one of our own.
    """

    def __init__(
        self, clock: Clock, observe: Callable[[RequestRecord], object], *, is_traced: bool = False
    ) -> None:
        self._clock = clock
        self._is_traced = is_traced
        self._observe = observe

    def begin(self, scope: Scope) -> float:
        """Name a request: in `scope`, in what it logs, and in the headers of its answer, `extra_headers`.

        Returns:
            When it began, for `end`.
        """
        request_id, parents = _identify(scope)
        trace_id = _trace_id(parents) if parents or self._is_traced else None
        scope["request_id"] = request_id
        scope["extra_headers"] = [(b"x-request-id", request_id.encode("ascii"))]
        fields = {"request_id": request_id}
        log_fields.set(fields if trace_id is None else fields | {"trace_id": trace_id})
        return self._clock.monotonic()

    def render(self, scope: Scope, problem: errors.Problem) -> Response:
        """Return the answer for `problem`."""
        return errors.render(problem, scope["request_id"], self._clock.now())

    def render_unexpected(self, scope: Scope) -> Response:
        """Log the error that is being handled, which nobody foresaw, and return the answer for it."""
        _log.exception("unexpected_error", method=scope["method"], path=scope["path"])
        return self.render(scope, errors.INTERNAL_ERROR)

    def end(self, scope: Scope, status: int, began: float) -> None:
        """Tell the observer what was sent: `status`, 0 for nothing."""
        seconds = self._clock.monotonic() - began
        route = getattr(scope.get("route"), "path", "unmatched")
        self._observe(RequestRecord(scope["method"], route, scope["path"], status, seconds, log_fields.get()))


class RequestContextMiddleware:
    """The context around an app.

    Args:
        app: What it stands around.
        context: What is to be around it.
    """

    def __init__(self, app: ASGIApp, context: RequestContext) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._context.begin(scope)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *scope["extra_headers"]]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            answer = self._context.render_unexpected(scope)
            if status:
                raise  # too late to say so: the server cuts the connection
            await answer(scope, receive, send_with_headers)
        finally:
            self._context.end(scope, status, began)


def _identify(scope: Scope) -> tuple[str, Sequence[bytes]]:
    """Return a request's id, the caller's or a new one, and what it says of the trace it is in."""
    request_id = None
    parents: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"x-request-id" and request_id is None and _SANE_ID.match(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent":
            parents.append(value)
    if request_id is None:
        request_id = f"{_PROCESS}{next(_numbers):016x}"  # unlike a UUID, at no cost to speak of
    return request_id, parents


def _trace_id(parents: Sequence[bytes]) -> str | None:
    """Return the id of the trace that our own span belongs to, else of the caller's, where there is one.

    The caller's stands in its W3C `traceparent`, whether or not spans are recorded here.
    """
    found = trace.get_current_span().get_span_context()
    if not found.is_valid and len(parents) == 1:
        parent = _TRACE_CONTEXT.extract({"traceparent": parents[0].decode("latin-1")})
        found = trace.get_current_span(parent).get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else None
