"""The variables that enable OpenTelemetry, and the traces."""

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from src.telemetry.tracing import CallSpan, is_enabled, run_exporters, send_trace_context, telemetry_config

COLLECTOR = "http://localhost:4318"


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "api"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": COLLECTOR}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_an_endpoint_enables_tracing_unless_it_is_disabled(environment, asked):
    assert is_enabled(environment) is asked


@pytest.mark.parametrize("on", [True, False])
def test_traces_and_metrics_go_together_and_logs_stay_on_stdout(on):
    config = telemetry_config(on=on)
    assert (config["tracing"], config["metrics"]) == (on, on)
    assert (config["auto_configure"], config["logs"]) == (False, False)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
    ],
)
async def test_an_invalid_telemetry_setting_is_logged_and_ignored(clock, setting, value, caplog):
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_TRACES_EXPORTER": "none", setting: value}
    async with run_exporters(settings, clock):
        pass
    (record,) = caplog.records
    assert record.message == "telemetry_not_exported"
    assert value in record.reason


async def test_with_exporters_none_nothing_is_sent(clock):
    settings = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    provider = trace.get_tracer_provider()
    async with run_exporters(settings | {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, clock):
        assert trace.get_tracer_provider() is provider


def test_probes_are_not_traced():
    exclude = telemetry_config(on=True)["exclude"]
    paths = ["/health", "/health/live", "/metrics", "/api/metrics", "/healthy"]
    assert [exclude({"path": path}) for path in paths] == [True, True, True, False, False]


class Recorder:
    """A tracer provider for one test, since the global one can be set only once."""

    def __init__(self):
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self):
        return self._exporter.get_finished_spans()


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(trace, "get_tracer", recorder.provider.get_tracer)
    yield recorder
    recorder.provider.shutdown()


async def test_a_call_is_a_span_of_its_trace(recorder):
    async def call():
        return "answer"

    with recorder.provider.get_tracer("test").start_as_current_span("request") as request:
        assert await CallSpan("attempt").run(call) == "answer"
    attempt, _ = recorder.spans
    assert (attempt.name, attempt.kind) == ("attempt", SpanKind.CLIENT)
    assert attempt.parent == request.get_span_context()
    assert attempt.status.status_code is StatusCode.UNSET


async def test_a_failed_call_is_a_span_with_an_error(recorder):
    async def call():
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await CallSpan("attempt").run(call)
    (attempt,) = recorder.spans
    assert attempt.status.status_code is StatusCode.ERROR
    assert attempt.events[0].attributes["exception.type"] == "ValueError"


async def test_the_called_service_gets_the_trace(recorder):
    def answer(request):
        return httpx.Response(200, text=request.headers.get("traceparent", "none"))

    hooks = {"request": [send_trace_context]}
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks=hooks) as client:
        assert (await client.get("http://provider/")).text == "none"
        with recorder.provider.get_tracer("test").start_as_current_span("attempt") as span:
            traceparent = (await client.get("http://provider/")).text
    context = span.get_span_context()
    assert traceparent.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
