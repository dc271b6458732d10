"""The log fields of a request, which all of its log lines contain."""

import pytest
from opentelemetry import trace

from src.api.request_context import RequestContext
from src.observation.log_context import log_fields

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def fields_of_request(clock):
    """Begin a request with these headers, and return its log fields."""

    async def fields_of_request(*headers):
        context = RequestContext(clock, lambda _answered: None)
        context.begin({"type": "http", "method": "GET", "path": "/", "headers": headers})
        return log_fields.get()

    before = log_fields.set({})
    yield fields_of_request
    log_fields.reset(before)


async def test_the_log_has_the_trace_of_the_client(fields_of_request):
    found = await fields_of_request((b"x-request-id", b"abc"), (b"traceparent", TRACEPARENT.encode()))
    assert found == {"request_id": "abc", "trace_id": TRACE_ID}


async def test_a_request_without_a_trace_has_no_trace_id(fields_of_request):
    assert await fields_of_request((b"x-request-id", b"abc")) == {"request_id": "abc"}


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        b"nonsense",
        TRACEPARENT[:-1].encode(),
        TRACEPARENT.upper().encode(),
        b"ff" + TRACEPARENT[2:].encode(),
        TRACEPARENT.replace(TRACE_ID, "0" * 32).encode(),
        b'00-"},{"level":"forged"-00f067aa0ba902b7-01',
        b"\xff" * 55,
    ],
)
async def test_an_invalid_traceparent_is_ignored(fields_of_request, traceparent):
    assert "trace_id" not in await fields_of_request((b"traceparent", traceparent))


async def test_two_traceparents_are_ignored(fields_of_request):
    """The W3C's rule: with several headers it is unclear which trace to continue."""
    header = (b"traceparent", TRACEPARENT.encode())
    assert "trace_id" not in await fields_of_request(header, header)


async def test_the_trace_of_the_current_span_takes_precedence(fields_of_request):
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        found = await fields_of_request((b"traceparent", TRACEPARENT.encode()))
    assert found["trace_id"] == f"{0xABC:032x}"


async def test_a_trace_ends_with_its_request(fields_of_request):
    assert "trace_id" in await fields_of_request((b"traceparent", TRACEPARENT.encode()))
    assert "trace_id" not in await fields_of_request()
