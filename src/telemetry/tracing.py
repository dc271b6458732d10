"""OpenTelemetry, where the environment asks for it: FastAPI's own telemetry, and the calls we make.

It is asked for by an OTLP endpoint: `OTEL_EXPORTER_OTLP_ENDPOINT`, or the one of traces or metrics alone
(https://opentelemetry.io/docs/specs/otel/protocol/exporter/). FastAPI reads that and the rest of `OTEL_*`
when the server starts. Where nobody asks, none of it is set up, and no request is looked at.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any, TypeVar

import httpx
from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind

from src.resilience.policy import Call

T = TypeVar("T")

_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
)  # fmt: skip
_PROBED = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Requested by machines, every few seconds, for good: their traces would bury all others."""


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Return whether `environment` names an OTLP endpoint, and does not set `OTEL_SDK_DISABLED`."""
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not is_disabled and any(environment.get(name) for name in _ENDPOINTS)


def telemetry(*, on: bool) -> TelemetryConfig:
    """Return what FastAPI is to do: one span for each request and the metrics of them all, or nothing.

    Logs are not exported: they are on stdout, and say what a request's trace is.
    """
    return TelemetryConfig(
        auto_configure=on,
        tracing=on,
        metrics=on,
        logs=False,
        operation_spans=False,  # an endpoint here is its request, but for microseconds
        exclude=_is_probe,
    )


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
