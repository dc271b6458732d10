"""What one worker counts, and how it tells of it."""

import pytest

from src.resilience.events import CacheAnswered, Rejected
from src.services.answered import Answered
from src.services.pulse import REPORT_SECONDS, Pulse, PulseReporter
from src.services.pulse_store import MemoryPulseStore


@pytest.fixture
def pulse() -> Pulse:
    return Pulse(cache="summary", untimed_routes=frozenset({"/api/events"}))


def request(pulse, status=200, seconds=0.01, route="/api/metrics"):
    pulse.observe_requests([Answered("GET", route, route, status, seconds, {})])


def test_requests_are_counted_and_those_that_failed_here_as_errors(pulse):
    for status in (200, 404, 429, 500, 503):
        request(pulse, status)
    beat = pulse.take()
    assert (beat["requests"], beat["errors"]) == (5, 2)


def test_how_long_requests_took_is_known_within_one_percent(pulse):
    for milliseconds in range(1, 101):
        request(pulse, seconds=milliseconds / 1000)
    beat = pulse.take()
    assert [beat.latency_ms(q) for q in (0.5, 0.95, 0.99)] == pytest.approx([50, 95, 99], rel=0.01)


def test_an_answer_that_lasts_as_long_as_its_client_stays_is_no_latency(pulse):
    request(pulse, seconds=3600, route="/api/events")
    beat = pulse.take()
    assert beat["requests"] == 1
    assert beat.latency_ms(0.99) is None


def test_points_decisions_and_round_trips_are_counted(pulse):
    pulse.observe_writes([999, 1])
    pulse.observe_writes([1])
    pulse.observe_decisions({"allowed": 1, "refused": 1, "bypassed": 1})
    pulse.observe_decisions({"allowed": 1, "refused": 0})
    pulse.observe_round_trip(3, 0.0004)
    pulse.observe_round_trip(1, 0.0006)
    assert pulse.take().tallies == {
        "points": 1001, "allowed": 2, "refused": 1, "bypassed": 1, "round_trips": 2, "round_trip_us": 1000,
    }  # fmt: skip


def test_of_all_events_the_answers_of_its_cache_are_counted(pulse):
    for outcome in ("hit", "updating", "miss", "stale"):
        pulse(CacheAnswered(policy="summary", outcome=outcome))
    pulse(CacheAnswered(policy="summary", times=4, outcome="hit"))
    pulse(CacheAnswered(policy="proxy", outcome="hit"))
    pulse(Rejected(policy="ingest", retry_after=1))
    assert pulse.take().tallies == {"hits": 6, "misses": 1, "stale": 1}


def test_what_was_taken_is_not_counted_again(pulse):
    request(pulse)
    pulse.take()
    assert pulse.take()["requests"] == 0


async def test_it_reports_once_a_second_until_it_is_closed(pulse, clock):
    store = MemoryPulseStore(clock)
    reporter = PulseReporter(pulse, store, clock)
    reporter.start()
    for _ in range(3):
        request(pulse)
        await clock.advance(REPORT_SECONDS)
    assert (await store.read()).beat["requests"] == 2  # what came this second is not over
    await reporter.aclose()
    request(pulse)
    await clock.advance(5)
    assert (await store.read()).beat["requests"] == 3
    await reporter.aclose()


async def test_closing_what_was_never_started_is_no_harm(pulse, clock):
    await PulseReporter(pulse, MemoryPulseStore(clock), clock).aclose()
