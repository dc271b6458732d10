"""The instruments and their labels."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from src.observation.request_record import RequestRecord
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.errors import CallTimeoutError, RejectedError
from src.resilience.events import CacheAnswered, ProbeStarted, SlotTaken, StateChanged
from src.resilience.paced_queue.store import PaceStatus
from src.services.proxy.service import ProxyStatus
from src.services.proxy.totals import ProxyTotals
from src.telemetry import instruments
from src.telemetry.instruments import (
    CallTimer,
    count_event,
    limiter_observer,
    observe_requests,
    observe_round_trip,
    observe_writes,
    update_breaker_gauge,
    update_proxy_gauges,
)

PAGE = Path("docs/telemetry.md")
METRICS = [metric for metric in vars(instruments).values() if isinstance(metric, MetricWrapperBase)]


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


def documented_instruments(metric):
    (description,) = metric.describe()
    name = f"{description.name}_total" if description.type == "counter" else description.name
    return name, description.type, metric._labelnames, description.documentation


# The documented metrics


def test_the_documentation_page_lists_every_metric():
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|(.*?)\| [^|]+ \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    description = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows
    ]
    assert description == [documented_instruments(metric) for metric in METRICS]


def test_the_alerts_use_existing_metrics_and_labels():
    labels = {name: set(names) for name, _, names, _ in map(documented_instruments, METRICS)}
    (rules,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    asked = re.findall(r"\b([a-z_]+_(?:total|state))(?:\{(\w+)=)?", rules)
    assert len(asked) == 4
    for name, label in asked:
        assert not label or label in labels[name]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric._name)
def test_no_label_has_a_value_chosen_by_a_client(metric):
    assert not {"client", "ip", "address", "type", "path", "request_id"} & set(metric._labelnames)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric._name)
def test_durations_are_in_seconds(metric):
    assert metric._type != "histogram" or metric._name.endswith(("_seconds", "_points", "_commands"))


# The functions that count


@pytest.mark.parametrize(
    ("event", "name", "labels"),
    [
        (
            StateChanged(policy="counted", before="CLOSED", after="OPEN", reason="5 failures"),
            "circuit_breaker_transitions_total",
            {"breaker": "counted", "before": "CLOSED", "after": "OPEN"},
        ),
        (
            CacheAnswered(policy="counted", outcome="stale"),
            "cache_answers_total",
            {"cache": "counted", "outcome": "stale"},
        ),
        (
            ProbeStarted(policy="counted"),
            "resilience_events_total",
            {"policy": "counted", "event": "ProbeStarted"},
        ),
    ],
)
def test_an_event_is_counted_by_exactly_one_metric(event, name, labels):
    before = value(name, **labels)
    count_event(event)
    count_event(replace(event, times=2))
    assert value(name, **labels) == before + 3


def test_a_request_is_counted_under_its_route_and_not_its_path():
    get = RequestRecord("GET", "/a/{b}", "/a/secret", 200, 0.003, {})
    observe_requests([get, RequestRecord("BREW", "unmatched", "/coffee", 404, 0.003, {}), get])
    assert value("http_requests_total", method="GET", route="/a/{b}", status="200") == 2
    assert value("http_requests_total", method="other", route="unmatched", status="404") == 1
    within = {"method": "GET", "route": "/a/{b}"}
    assert value("http_request_duration_seconds_bucket", le="0.0025", **within) == 0
    assert value("http_request_duration_seconds_bucket", le="0.005", **within) == 2


def test_a_write_is_counted_in_points():
    names = ("ingested_points_total", "ingest_batch_points_sum", "ingest_batch_points_count")
    before = [value(name) for name in names]
    observe_writes([250, 1])
    assert [value(name) for name in names] == [before[0] + 251, before[1] + 251, before[2] + 2]


def test_a_round_trip_is_counted_with_its_time_and_its_commands():
    names = (
        "redis_round_trips_total",
        "redis_round_trip_duration_seconds_sum",
        "redis_commands_total",
    )
    before = [value(name) for name in names]
    observe_round_trip(3, 0.5)
    assert [value(name) for name in names] == [before[0] + 1, before[1] + 0.5, before[2] + 3]


def test_all_outcomes_of_a_limiter_are_exported_from_zero_on():
    name, own = "rate_limiter_decisions_total", {"quota": "counted", "algorithm": "token_bucket"}
    observe = limiter_observer("counted", "token_bucket")
    for outcome in ("allowed", "refused", "bypassed"):
        assert REGISTRY.get_sample_value(name, {**own, "outcome": outcome}) == 0
    observe({"allowed": 0, "bypassed": 3})
    assert value(name, **own, outcome="bypassed") == 3
    assert value(name, **own, outcome="allowed") == 0


def test_a_wait_in_the_queue_is_counted():
    before = value("proxy_queue_wait_seconds_sum")
    count_event(SlotTaken(policy="proxy", seconds=1.5))
    assert value("proxy_queue_wait_seconds_sum") == before + 1.5


# Gauges, which are updated when they are read


async def test_a_breaker_is_in_one_state_at_a_time(clock):
    breaker = CircuitBreaker("read", MemoryBreakerStore(clock), CircuitBreakerOptions(), clock)

    async def states():
        await update_breaker_gauge(breaker)
        return {
            state: value("circuit_breaker_state", breaker="read", state=state)
            for state in ("CLOSED", "OPEN", "HALF_OPEN")
        }

    assert await states() == {"CLOSED": 1, "OPEN": 0, "HALF_OPEN": 0}
    await breaker.force_open()
    assert await states() == {"CLOSED": 0, "OPEN": 1, "HALF_OPEN": 0}


async def test_the_proxy_gauges_are_its_queue_length_and_breaker_state(clock):
    breaker = CircuitBreaker("proxy", MemoryBreakerStore(clock), CircuitBreakerOptions(), clock)

    class ProxyStub:
        def __init__(self):
            self.sizes = [7, 0]

        async def status(self):
            queue = PaceStatus("fifo", self.sizes.pop(0), 100, None, 0)
            return ProxyStatus(queue, False, ProxyTotals(), await breaker.status(), 1.0)

    proxy = ProxyStub()
    for size, closed in ((7, 1), (0, 0)):
        await update_proxy_gauges(proxy)
        assert value("proxy_queue_length") == size
        assert value("circuit_breaker_state", breaker="proxy", state="CLOSED") == closed
        await breaker.force_open()


# The policy that measures


def outcomes(name):
    return {
        outcome: value("resilience_call_duration_seconds_count", policy=name, outcome=outcome)
        for outcome in ("succeeded", "failed", "timed_out", "rejected")
    }


NONE = {"succeeded": 0, "failed": 0, "timed_out": 0, "rejected": 0}


@pytest.mark.parametrize(
    ("error", "judgement", "outcome"),
    [
        (None, None, "succeeded"),
        (ValueError("broken"), True, "failed"),
        (ValueError("not found"), None, "succeeded"),
        (ValueError("refused"), False, "succeeded"),
        (CallTimeoutError(5), True, "timed_out"),
        (RejectedError("bulkhead", "full", 1), True, "rejected"),
    ],
)
async def test_a_call_is_observed_with_its_outcome_and_time(clock, request, error, judgement, outcome):
    name = request.node.name
    measured = CallTimer(name, clock, lambda _error: judgement)

    async def call():
        await clock.advance(2.0)
        if error:
            raise error
        return "answer"

    if error:
        with pytest.raises(type(error)) as raised:
            await measured.run(call)
        assert raised.value is error
    else:
        assert await measured.run(call) == "answer"
    assert outcomes(name) == {**NONE, outcome: 1}
    assert value("resilience_call_duration_seconds_sum", policy=name, outcome=outcome) == 2.0


async def test_a_cancelled_call_has_no_outcome(clock):
    measured = CallTimer("cancelled", clock, lambda _error: True)
    task = asyncio.create_task(measured.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes("cancelled") == NONE
