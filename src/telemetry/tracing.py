"""OpenTelemetry, where the environment asks for it: FastAPI's own telemetry, and the calls we make.

It is asked for by an OTLP endpoint: `OTEL_EXPORTER_OTLP_ENDPOINT`, or the one of traces or metrics alone
(https://opentelemetry.io/docs/specs/otel/protocol/exporter/). That and the rest of `OTEL_*` are read when the
server starts. Where nobody asks, none of it is set up, and no request is looked at.

The exporters are made here and not by FastAPI, whose own ones obey `HTTP_PROXY`, `REQUESTS_CA_BUNDLE` and a
`.netrc` file.
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
"""How long a stop waits until the collector has what was gathered."""

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
)  # fmt: skip
_PROBED = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Requested by machines, every few seconds, for good: their traces would bury all others."""

_log = logging.getLogger(__name__)


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Return whether `environment` names an OTLP endpoint, and does not set `OTEL_SDK_DISABLED`."""
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not is_disabled and any(environment.get(name) for name in _ENDPOINTS)


def telemetry(*, on: bool) -> TelemetryConfig:
    """Return what FastAPI is to do: one span for each request and the metrics of them all, or nothing.

    Logs are not exported: they are on stdout, and say what a request's trace is.
    """
    return TelemetryConfig(
        auto_configure=False,
        tracing=on,
        metrics=on,
        logs=False,
        operation_spans=False,  # an endpoint here is its request, but for microseconds
        exclude=_is_probe,
    )


class _Exporting(Protocol):
    """What sends traces or metrics."""

    def shutdown(self) -> object:
        """Send what is gathered, and stop. This may take as long as the exporter's timeout."""
        ...


@asynccontextmanager
async def exporting(environment: Mapping[str, str], clock: Clock) -> AsyncIterator[None]:
    """Have traces and metrics sent to where `environment` says.

    A setting that cannot be followed is logged and exports nothing; it keeps no service from starting.

    Args:
        environment: The variables of the process.
        clock: Counts the seconds of the last export.
    """
    exporting: list[_Exporting] = []
    if is_asked_for(environment):
        try:
            exporting += _exporters(environment)
        except Exception as error:  # noqa: BLE001 -- whatever the libraries make of a setting
            _log.warning("telemetry_not_exported", extra={"reason": str(error)})
    try:
        yield
    finally:
        await _export_the_last(exporting, clock)


async def _export_the_last(exporting: Sequence[_Exporting], clock: Clock) -> None:
    """Send what is gathered, for `LAST_EXPORT_SECONDS` at most: an exporter may try for much longer."""
    exports = [threading.Thread(target=each.shutdown, daemon=True) for each in exporting]
    for export in exports:
        export.start()
    try:
        async with clock.timeout(LAST_EXPORT_SECONDS):
            while any(export.is_alive() for export in exports):
                await clock.sleep(0.02)
    except TimeoutError:
        _log.warning("telemetry_lost", extra={"reason": f"no answer within {LAST_EXPORT_SECONDS:g} s"})


def _exporters(environment: Mapping[str, str]) -> list[_Exporting]:
    # Slow to import, and hardly ever wanted. `requests` is what the exporters send by.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from requests import Session  # noqa: PLC0415

    session = Session()
    session.trust_env = False  # no proxy, certificate or credential that no setting of ours names
    exporting: list[_Exporting] = []
    if _is_exported("TRACES", environment):
        spans = BatchSpanProcessor(OTLPSpanExporter(session=session))
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(spans)
        trace.set_tracer_provider(tracers)
        exporting.append(spans)
    if _is_exported("METRICS", environment):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(session=session))
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
        exporting.append(reader)
    return exporting


def _is_exported(signal: str, environment: Mapping[str, str]) -> bool:
    """Return whether `environment` names an endpoint for `signal`, by OTLP over HTTP.

    Raises:
        ValueError: It names another exporter, or another protocol.
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


class Traced:
    """A policy that decides nothing: each call is a span of its request's trace, an error if it raises.

    Args:
        name: Of the spans.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tracer = trace.get_tracer("src.telemetry.tracing")

    async def run(self, call: Call[T]) -> T:
        """Run `call`. Returns and raises what it does."""
        with self._tracer.start_as_current_span(self._name, kind=SpanKind.CLIENT):
            return await call()


async def send_trace_context(request: httpx.Request) -> None:
    """Be the httpx hook that has the service called go on with the trace: its `traceparent`."""
    propagate.inject(request.headers)
