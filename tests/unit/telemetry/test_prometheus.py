"""What is counted of the patterns' decisions."""

import pytest
from prometheus_client import REGISTRY

from src.resilience.events import CacheAnswered, ProbeStarted, StateChanged
from src.telemetry.prometheus import count_event


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        (StateChanged(policy="counted", before="CLOSED", after="OPEN", reason="5 failures"), "CLOSED->OPEN"),
        (CacheAnswered(policy="counted", outcome="stale"), "stale"),
        (ProbeStarted(policy="counted"), ""),
    ],
)
def test_an_event_is_counted_by_policy_kind_and_detail(event, detail):
    def counted():
        labels = {"policy": "counted", "event": type(event).__name__, "detail": detail}
        return REGISTRY.get_sample_value("resilience_events_total", labels) or 0

    before = counted()
    count_event(event)
    assert counted() == before + 1
