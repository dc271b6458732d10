"""The context of a request: its id, the trace it belongs to, and the record of it at its end."""

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

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_TRACE_CONTEXT = TraceContextTextMapPropagator()

_PROCESS = secrets.token_hex(8)
_numbers = count(1)


def add_headers(scope: Scope, *headers: tuple[bytes, bytes]) -> None:
    """Put `headers` on the answer to the request of `scope`, whatever the answer will be."""
    scope["extra_headers"].extend(headers)


class RequestContext:
    """Begins and ends the context of each request.

    Args:
        clock: Measures each request.
        observe: Called with the record of each request, at its end.
        is_traced: Whether spans are recorded here, so that a request may be in one of our own.
    """

    def __init__(
        self, clock: Clock, observe: Callable[[RequestRecord], object], *, is_traced: bool = False
    ) -> None:
        self.clock = clock
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
        return self.clock.monotonic()

    def end(self, scope: Scope, route: str, status: int, began: float) -> None:
        """Report a request.

        Args:
            scope: The scope of the request.
            route: The template of its path, "unmatched" where there is none.
            status: The status of the answer, 0 where none was sent.
            began: What `begin` returned.
        """
        seconds = self.clock.monotonic() - began
        self._observe(RequestRecord(scope["method"], route, scope["path"], status, seconds, log_fields.get()))


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
