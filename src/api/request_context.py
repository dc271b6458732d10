"""The context of a request: its id, its trace, and the record of the request after its end."""

import re
import secrets
from collections.abc import Callable, Sequence
from itertools import count

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from src.observation.log_context import log_fields
from src.observation.request_record import RequestRecord
from src.resilience.clock import Clock

_VALID_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_TRACE_CONTEXT = TraceContextTextMapPropagator()

_PROCESS = secrets.token_hex(8)
_numbers = count(1)


def add_headers(scope: Scope, *headers: tuple[bytes, bytes]) -> None:
    """Add `headers` to the answer to the request with `scope`, even if the answer is an error."""
    scope["extra_headers"].extend(headers)


class RequestContext:
    """Begins and ends the context of each request.

    Args:
        clock: Measures each request.
        observe: Called with the record of each request after its end.
        is_traced: Whether this process records spans, so that a request may be inside a span.
    """

    def __init__(
        self, clock: Clock, observe: Callable[[RequestRecord], object], *, is_traced: bool = False
    ) -> None:
        self.clock = clock
        self._is_traced = is_traced
        self._observe = observe

    def begin(self, scope: Scope) -> float:
        """Give a request its id: in `scope`, in its log lines, and in `extra_headers` of its answer.

        Returns:
            The time of the call, as a monotonic reading, for `end`.
        """
        request_id, parents = _identify(scope)
        trace_id = _trace_id(parents) if parents or self._is_traced else None
        scope["request_id"] = request_id
        scope["extra_headers"] = [(b"x-request-id", request_id.encode("ascii"))]
        fields = {"request_id": request_id}
        log_fields.set(fields if trace_id is None else fields | {"trace_id": trace_id})
        return self.clock.monotonic()

    def end(self, scope: Scope, route: str, status: int, began: float) -> None:
        """Report a request that has ended.

        Args:
            scope: The scope of the request.
            route: The template of its path; "unmatched" if no route matched.
            status: The status of the answer; 0 if no answer was sent.
            began: The result of `begin`.
        """
        seconds = self.clock.monotonic() - began
        self._observe(RequestRecord(scope["method"], route, scope["path"], status, seconds, log_fields.get()))


def _identify(scope: Scope) -> tuple[str, Sequence[bytes]]:
    """Return the id of a request, which is the client's or a new one, and its `traceparent` headers."""
    request_id = None
    parents: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"x-request-id" and request_id is None and _VALID_ID.match(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent":
            parents.append(value)
    if request_id is None:
        request_id = f"{_PROCESS}{next(_numbers):016x}"  # much cheaper than a UUID
    return request_id, parents


def _trace_id(parents: Sequence[bytes]) -> str | None:
    """Return the trace id of the current span or, without a span, of the client's W3C `traceparent`.

    The result is None without both. The client's id is used even if this process records no spans.
    """
    span = trace.get_current_span().get_span_context()
    if not span.is_valid and len(parents) == 1:
        parent = _TRACE_CONTEXT.extract({"traceparent": parents[0].decode("latin-1")})
        span = trace.get_current_span(parent).get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else None
