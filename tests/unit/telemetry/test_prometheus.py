"""What this service adds to prometheus-client's metrics."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from src.telemetry.prometheus import Histogram

BOUNDS = (0.001, 0.5, 1, 10)


@given(st.lists(st.sampled_from([0, 0.001, 0.0011, 0.5, 1, 7, 10, 11]) | st.floats(0, 100)))
def test_many_observations_at_once_are_as_many(amounts):
    told = []
    for kind in (Histogram, prometheus_client.Histogram):
        registry = CollectorRegistry()
        series = kind("seconds", "Seconds", ["of"], buckets=BOUNDS, registry=registry).labels("it")
        if kind is Histogram:
            series.observe_all(amounts)
        else:
            for amount in amounts:
                series.observe(amount)
        (metric,) = registry.collect()
        told.append({(each.name, each.labels.get("le")): each.value for each in metric.samples})
    total = ("seconds_sum", None)
    assert abs(told[0].pop(total) - told[1].pop(total)) < 1e-9 * (1 + sum(amounts))
    assert told[0] == told[1]
