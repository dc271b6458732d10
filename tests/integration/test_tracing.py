"""OpenTelemetry of a running service, with an OTLP receiver."""

import socket
import subprocess
import sys
import time

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.collector import attributes
from tests.support.server import Server, environment, free_port

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}


async def calls(server, *paths, headers=None):
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await server.until_healthy(client)
        return [await client.get(path, headers=headers) for path in paths]


@pytest.mark.slow
async def test_a_request_and_its_attempts_are_spans_of_the_callers_trace(start_server, collector):
    server = start_server(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_SERVICE_NAME="under-test",
        EXTERNAL_SERVICE_FAILURE_RATE="1",
        EXTERNAL_SERVICE_ATTEMPTS="2",
    )
    await calls(server, "/api/metrics/summary?type=cpu", "/nowhere", "/metrics", headers=TRACEPARENT)
    server.stop()  # the collected commands are sent

    served = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    (summary,) = [span for span in served if span.name == "GET /api/metrics/summary"]
    assert summary.trace_id.hex() == TRACE_ID
    assert summary.parent_span_id.hex() == PARENT_ID
    span_attributes = attributes(summary)
    assert span_attributes["http.route"] == "/api/metrics/summary"
    assert span_attributes["http.response.status_code"] == 503

    attempts = [span for span in collector.spans if span.name == "external-service.attempt"]
    assert len(attempts) == 2
    for attempt in attempts:
        assert attempt.kind == Span.SPAN_KIND_CLIENT
        assert attempt.trace_id == summary.trace_id
        assert attempt.parent_span_id == summary.span_id
        assert attempt.status.code == Status.STATUS_CODE_ERROR
    # the external service, in this process, continues the span of the attempt that calls it
    called = [span for span in served if attributes(span).get("url.path") == "/kv/metric-types/cpu"]
    assert {span.parent_span_id for span in called} == {attempt.span_id for attempt in attempts}
    # and routes that probes request every few seconds have no spans
    assert not {attributes(span).get("url.path") for span in served} & {"/health", "/metrics"}

    durations = collector.metrics["http.server.request.duration"]
    assert durations.unit == "s"
    routes = {attributes(point).get("http.route") for point in durations.histogram.data_points}
    assert "/api/metrics/summary" in routes
    assert collector.services == {"under-test"}

    # every line of the request has its trace id
    ids = {line["request_id"] for line in server.lines() if line.get("path") == "/api/metrics/summary"}
    (request_id,) = ids
    own = [line for line in server.lines() if line.get("request_id") == request_id]
    assert {"request", "Retried", "RetriesExhausted"} <= {line["event"] for line in own}
    assert {line["trace_id"] for line in own} == {TRACE_ID}


@pytest.mark.slow
async def test_without_a_parent_a_request_begins_a_trace_that_its_log_line_names(start_server, collector):
    server = start_server(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces")
    await calls(server, "/api/metrics/types")
    server.stop()
    (span,) = [span for span in collector.spans if span.name == "GET /api/metrics/types"]
    (line,) = [line for line in server.lines() if line.get("path") == "/api/metrics/types"]
    assert line["trace_id"] == span.trace_id.hex()
    assert collector.received["/v1/metrics"] == []  # its export is not enabled


@pytest.mark.slow
async def test_disabled_tracing_sends_nothing(start_server, collector):
    server = start_server(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SDK_DISABLED="true")
    await calls(server, "/api/metrics/types", headers=TRACEPARENT)
    server.stop()
    assert collector.received == {"/v1/traces": [], "/v1/metrics": []}
    (line,) = [line for line in server.lines() if line.get("path") == "/api/metrics/types"]
    assert line["trace_id"] == TRACE_ID  # that of the caller


@pytest.mark.slow
async def test_an_unavailable_collector_does_not_affect_requests(start_server):
    nowhere = f"http://127.0.0.1:{free_port()}"
    server = start_server(OTEL_EXPORTER_OTLP_ENDPOINT=nowhere, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    answers = await calls(server, *["/api/metrics/types"] * 20)
    assert {answer.status_code for answer in answers} == {200}
    server.stop()
    assert any("export" in line["event"].lower() for line in server.lines())  # the failed export is logged


@pytest.fixture(params=["refuses", "is silent"])
def no_collector(request):
    """Return an endpoint without a collector."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
async def test_a_stop_does_not_wait_for_a_collector_that_does_not_answer(
    redis_server, tmp_path, no_collector
):
    server = Server(
        redis_server.url, tmp_path, command=("src",), workers=1, OTEL_EXPORTER_OTLP_ENDPOINT=no_collector
    )
    await calls(server, *["/api/metrics/types"] * 20)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 3
    assert server.lines("telemetry_lost")


@pytest.mark.slow
def test_disabled_tracing_imports_nothing():
    program = """if True:
        import asyncio, sys
        from src.main import app
        async def receive(messages=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]):
            return messages.pop(0)
        sent = []
        async def send(message):
            sent.append(message["type"])
        asyncio.run(app({"type": "lifespan", "state": {}}, receive, send))
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"], sent
        unwanted = ("opentelemetry.exporter", "opentelemetry.sdk.trace")
        print(*(name for name in sys.modules if name.startswith(unwanted)))
        assert not app._native_telemetry.enabled()
    """
    settings = environment(REDIS_URL=f"redis://127.0.0.1:{free_port()}", LOG_LEVEL="CRITICAL")
    ran = subprocess.run(
        [sys.executable, "-c", program], env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr
