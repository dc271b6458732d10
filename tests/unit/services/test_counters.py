"""The counters of one worker, and their flusher."""

import pytest

from src.observation.request_record import RequestRecord
from src.resilience.events import CacheAnswered, Rejected
from src.services.overview.counter_store import MemoryCounterStore
from src.services.overview.counters import FLUSH_SECONDS, CounterFlusher, WorkerCounters


@pytest.fixture
def counters() -> WorkerCounters:
    return WorkerCounters(cache="summary", untimed_routes=frozenset({"/api/events"}))


def request(counters, status=200, seconds=0.01, route="/api/metrics"):
    counters.observe_requests([RequestRecord("GET", route, route, status, seconds, {})])


def test_requests_are_counted_and_server_errors_as_errors(counters):
    for status in (200, 404, 429, 500, 503):
        request(counters, status)
    counts = counters.take()
    assert (counts["requests"], counts["errors"]) == (5, 2)


def test_latencies_are_exact_within_one_percent(counters):
    for milliseconds in range(1, 101):
        request(counters, seconds=milliseconds / 1000)
    counts = counters.take()
    assert [counts.latency_ms(q) for q in (0.5, 0.95, 0.99)] == pytest.approx([50, 95, 99], rel=0.01)


def test_the_duration_of_a_stream_does_not_count_as_a_latency(counters):
    request(counters, seconds=3600, route="/api/events")
    counts = counters.take()
    assert counts["requests"] == 1
    assert counts.latency_ms(0.99) is None


def test_points_decisions_and_round_trips_are_counted(counters):
    counters.observe_writes([999, 1])
    counters.observe_writes([1])
    counters.observe_decisions({"allowed": 1, "refused": 1, "bypassed": 1})
    counters.observe_decisions({"allowed": 1, "refused": 0})
    counters.observe_round_trip(3, 0.0004)
    counters.observe_round_trip(1, 0.0006)
    assert counters.take().values == {
        "points": 1001, "allowed": 2, "refused": 1, "bypassed": 1, "round_trips": 2, "round_trip_us": 1000,
    }  # fmt: skip


def test_only_answers_of_the_counted_cache_are_counted(counters):
    for outcome in ("hit", "updating", "miss", "stale"):
        counters(CacheAnswered(policy="summary", outcome=outcome))
    counters(CacheAnswered(policy="summary", times=4, outcome="hit"))
    counters(CacheAnswered(policy="proxy", outcome="hit"))
    counters(Rejected(policy="ingest", retry_after=1))
    assert counters.take().values == {"hits": 5, "misses": 1, "stale": 2}


def test_each_count_is_flushed_once(counters):
    request(counters)
    counters.take()
    assert counters.take()["requests"] == 0


async def test_the_flusher_adds_the_counts_once_a_second_until_it_is_closed(counters, clock):
    store = MemoryCounterStore(clock)
    reporter = CounterFlusher(counters, store, clock)
    reporter.start()
    for _ in range(3):
        request(counters)
        await clock.advance(FLUSH_SECONDS)
    assert (await store.read()).counts["requests"] == 2  # the current second is not complete
    await reporter.aclose()
    request(counters)
    await clock.advance(5)
    assert (await store.read()).counts["requests"] == 3
    await reporter.aclose()


async def test_closing_without_a_start_is_harmless(counters, clock):
    await CounterFlusher(counters, MemoryCounterStore(clock), clock).aclose()
