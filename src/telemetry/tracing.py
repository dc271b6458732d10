"""OpenTelemetry: FastAPI's own telemetry, and spans of the calls that the service makes.

An OTLP endpoint in the environment enables it: `OTEL_EXPORTER_OTLP_ENDPOINT`, or the endpoint for traces or
metrics alone (https://opentelemetry.io/docs/specs/otel/protocol/exporter/). All `OTEL_*` variables are read
when the server starts. Without an endpoint nothing is set up, and requests take no additional time.

This module creates the exporters itself, because FastAPI's exporters obey `HTTP_PROXY`, `REQUESTS_CA_BUNDLE`
and a `.netrc` file.
"""

import logging
import threading
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import httpx
from fastapi.telemetry import TelemetryConfig
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import SpanKind

from src.resilience.clock import Clock
from src.resilience.policy import Call

T = TypeVar("T")

_log = logging.getLogger(__name__)

LAST_EXPORT_SECONDS = 2.0
"""The longest time that a stop waits for the last export."""

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
)  # fmt: skip
_PROBED = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Routes without traces. Probes request them every few seconds, and would hide all other traces."""


def is_enabled(environment: Mapping[str, str]) -> bool:
    """Return whether `environment` names an OTLP endpoint, and does not set `OTEL_SDK_DISABLED`."""
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not is_disabled and any(environment.get(name) for name in _ENDPOINTS)


def telemetry_config(*, on: bool) -> TelemetryConfig:
    """Return FastAPI's configuration: if `on`, one span for each request, and metrics of all requests.

    Logs are not exported. They are on stdout, and the lines of a request have its trace id.
    """
    return TelemetryConfig(
        auto_configure=False,
        tracing=on,
        metrics=on,
        logs=False,
        operation_spans=False,  # the span of an endpoint is only microseconds shorter than its request's
        exclude=_is_probe,
    )


class _Exporter(Protocol):
    """Sends traces or metrics in the background."""

    def shutdown(self) -> object:
        """Send the remaining data, and stop. This can take as long as the exporter's timeout."""
        ...


@asynccontextmanager
async def run_exporters(environment: Mapping[str, str], clock: Clock) -> AsyncIterator[None]:
    """Export traces and metrics to the endpoints in `environment`.

    An invalid variable is logged, and nothing is exported. The service starts nevertheless.

    Args:
        environment: The variables of the process.
        clock: Measures the time of the last export.
    """
    exporters: list[_Exporter] = []
    if is_enabled(environment):
        try:
            exporters += _exporters(environment)
        except Exception as error:  # noqa: BLE001 -- the libraries raise many kinds for invalid variables
            _log.warning("telemetry_not_exported", extra={"reason": str(error)})
    try:
        yield
    finally:
        await _shut_down(exporters, clock)


async def _shut_down(exporters: Sequence[_Exporter], clock: Clock) -> None:
    """Send the remaining data, within `LAST_EXPORT_SECONDS`. An exporter alone may try for much longer."""
    threads = [threading.Thread(target=exporter.shutdown, daemon=True) for exporter in exporters]
    for thread in threads:
        thread.start()
    try:
        async with clock.timeout(LAST_EXPORT_SECONDS):
            while any(thread.is_alive() for thread in threads):
                await clock.sleep(0.02)
    except TimeoutError:
        _log.warning("telemetry_lost", extra={"reason": f"no answer within {LAST_EXPORT_SECONDS:g} s"})


def _exporters(environment: Mapping[str, str]) -> list[_Exporter]:
    # These imports are slow and seldom needed. The exporters send with `requests`.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from requests import Session  # noqa: PLC0415

    session = Session()
    session.trust_env = False  # ignore proxies, certificates and credentials in the environment
    exporters: list[_Exporter] = []
    if _is_exported("TRACES", environment):
        spans = BatchSpanProcessor(OTLPSpanExporter(session=session))
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(spans)
        trace.set_tracer_provider(tracers)
        exporters.append(spans)
    if _is_exported("METRICS", environment):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(session=session))
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
        exporters.append(reader)
    return exporters


def _is_exported(signal: str, environment: Mapping[str, str]) -> bool:
    """Return whether `environment` names an OTLP endpoint for `signal`.

    Raises:
        ValueError: `environment` names another exporter than OTLP, or another protocol than HTTP.
    """
    exporter = (environment.get(f"OTEL_{signal}_EXPORTER") or "otlp").strip().lower()
    names = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if exporter == "none" or not any(environment.get(name) for name in names):
        return False
    if exporter != "otlp":
        raise ValueError(f"OTEL_{signal}_EXPORTER must be otlp or none, not {exporter}")
    names = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next(filter(None, map(environment.get, names)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ValueError(f"{names[1]} must be http/protobuf, not {protocol}")
    return True


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in _PROBED


class CallSpan:
    """A policy without an effect that records each call as a span. A call that raises is an error span.

    Args:
        name: The name of the spans.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tracer = trace.get_tracer("src.telemetry.tracing")

    async def run(self, call: Call[T]) -> T:
        """Run `call`, and return its result or raise its error."""
        with self._tracer.start_as_current_span(self._name, kind=SpanKind.CLIENT):
            return await call()


async def send_trace_context(request: httpx.Request) -> None:
    """Add `traceparent` to `request`, so that the called service continues the trace. An httpx hook."""
    propagate.inject(request.headers)
