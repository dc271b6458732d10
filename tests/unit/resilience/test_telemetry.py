"""The listeners for OpenTelemetry and Prometheus."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from src.resilience import Fixed, Retry, RetryOptions
from src.resilience.clock import SystemRandomizer
from src.resilience.events import Rejected
from src.resilience.telemetry.opentelemetry import OpenTelemetryListener
from src.resilience.telemetry.prometheus import PrometheusListener

SUCCEEDED = {"policy": "payments", "pattern": "Retry", "outcome": "succeeded"}
FAILED = SUCCEEDED | {"outcome": "failed"}
RETRIED = {"policy": "payments", "event": "Retried"}


async def make_calls(listener, clock):
    """Make two calls that succeed after 0.2 s, and one that fails at once and again after 3 s."""
    retry = Retry(
        RetryOptions(attempts=2, backoff=Fixed(3)),
        clock,
        SystemRandomizer(),
        name="payments",
        listener=listener,
    )

    async def fail():
        raise ConnectionError

    for _ in range(2):
        await clock.drive(retry.run(lambda: clock.sleep(0.2)))
    with pytest.raises(ConnectionError):
        await clock.drive(retry.run(fail))


async def test_prometheus_counts_calls_by_outcome_and_measures_them(clock):
    registry = CollectorRegistry()
    listener = PrometheusListener(registry)
    await make_calls(listener, clock)
    listener(Rejected(policy="payments", times=4, retry_after=None))

    value = registry.get_sample_value
    assert value("standfast_calls_total", SUCCEEDED) == 2
    assert value("standfast_calls_total", FAILED) == 1
    assert value("standfast_call_duration_seconds_sum", SUCCEEDED) == pytest.approx(0.4)
    assert value("standfast_call_duration_seconds_bucket", SUCCEEDED | {"le": "0.25"}) == 2
    assert value("standfast_call_duration_seconds_sum", FAILED) == pytest.approx(3)
    assert value("standfast_events_total", RETRIED) == 1
    assert value("standfast_events_total", RETRIED | {"event": "Rejected"}) == 4


def test_prometheus_accepts_other_buckets_and_one_listener_per_registry():
    registry = CollectorRegistry()
    PrometheusListener(registry, buckets=(1, 60))
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusListener(registry)


async def test_opentelemetry_counts_calls_by_outcome_and_measures_them(clock):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    listener = OpenTelemetryListener(provider)
    await make_calls(listener, clock)
    listener(Rejected(policy="payments", times=4, retry_after=None))

    points = read(reader)
    assert points["standfast.calls"] == {key(SUCCEEDED): 2, key(FAILED): 1}
    assert points["standfast.call.duration"] == {
        key(SUCCEEDED): (2, pytest.approx(0.4)),
        key(FAILED): (1, pytest.approx(3)),
    }
    assert points["standfast.events"][key(RETRIED)] == 1
    assert points["standfast.events"][key(RETRIED | {"event": "Rejected"})] == 4
    provider.shutdown()


def key(attributes):
    return tuple(sorted(attributes.items()))


def read(reader):
    [resource] = reader.get_metrics_data().resource_metrics
    [scope] = resource.scope_metrics
    assert scope.scope.name == "standfast"
    return {
        metric.name: {
            key(point.attributes): (point.count, point.sum) if hasattr(point, "count") else point.value
            for point in metric.data.data_points
        }
        for metric in scope.metrics
    }


async def test_opentelemetry_without_an_sdk_causes_no_error(clock):
    await make_calls(OpenTelemetryListener(), clock)
