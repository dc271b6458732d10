"""The lab: the reports of calls, the limits, and the end of all tasks."""

import asyncio
from contextlib import suppress
from dataclasses import asdict

import httpx
import pytest

from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.events import FellBack, TimedOut
from src.resilience.pipeline import Pipeline
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota, RateLimitOptions
from src.resilience.rate_limiter.policy import RateLimit
from src.resilience.retry import Fixed, Retry, RetryOptions
from src.resilience.timeout import Timeout
from src.services.errors import StorageUnavailableError
from src.services.external_service import ExternalService, is_failure, is_worth_retrying
from src.services.lab import (
    ATTEMPT_SECONDS,
    FAILING,
    MAX_CALLS,
    MAX_RUN_SECONDS,
    MIXED,
    SLOW,
    Lab,
    LabBusyError,
    LabPolicies,
)
from tests.support.clock import FakeRandomizer, settle

TIMEOUT_SECONDS = 5.0


class Provider:
    """A provider that answers `/get`, `/delay/3` and `/status/500`, or as set by a test."""

    def __init__(self, clock):
        self._clock = clock
        self.calls = 0
        self.open = 0
        self.most_open = 0
        self.instead = []

    async def answer(self, request):
        self.calls += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            instead = self.instead.pop(0) if self.instead else None
            if instead is not None:
                return await instead()
            match request.url.path:
                case "/delay/3":
                    await self._clock.sleep(3)
                case "/status/500":
                    return httpx.Response(500)
            return httpx.Response(200)
        finally:
            self.open -= 1


class Lease:
    """A lease that another worker holds for `held_for` seconds, or whose store is unavailable."""

    def __init__(self, held_for=0.0, *, away=False):
        self.held_for = held_for
        self._away = away
        self.holders = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def take(self, token, seconds):
        # The cancellation of a caller does not undo a command that was sent.
        return await asyncio.shield(asyncio.ensure_future(self._take(token)))

    async def _take(self, token):
        await self.answers.wait()
        if self._away:
            raise StorageUnavailableError("away")
        if not self.held_for:
            self.holders.append(token)
        return self.held_for

    async def release(self, token):
        if token in self.holders:
            self.holders.remove(token)


@pytest.fixture
def provider(clock):
    return Provider(clock)


@pytest.fixture
def lease():
    return Lease()


@pytest.fixture
def breaker(clock):
    options = CircuitBreakerOptions(failure_threshold=5)
    return CircuitBreaker("lab", MemoryBreakerStore(clock), options, clock, is_failure=is_failure)


@pytest.fixture
def finished():
    """Return a list with one element for each finished call."""
    return []


@pytest.fixture
def make_lab(clock, listener, provider, lease, breaker, finished):
    def make(*, rate=1000, permits=100, max_wait_seconds=5.0, at_once=100, attempt_seconds=TIMEOUT_SECONDS):
        policies = LabPolicies(
            RateLimit(
                memory_rate_limiter("token_bucket", Quota(rate, 1), clock),
                RateLimitOptions("lab", max_wait_seconds),
                clock,
            ),
            Bulkhead(BulkheadOptions(permits, max_waiting=50, max_wait_seconds=max_wait_seconds), clock),
            Pipeline(
                breaker,
                Retry(
                    RetryOptions(attempts=3, backoff=Fixed(0.1), retry_on=is_worth_retrying),
                    clock,
                    FakeRandomizer(),
                ),
                Timeout(TIMEOUT_SECONDS, clock),
            ),
            Timeout(attempt_seconds, clock, name="lab", listener=listener),
        )
        client = httpx.AsyncClient(transport=httpx.MockTransport(provider.answer), base_url="http://provider")
        attempt = ExternalService(client, Pipeline(), clock).attempt
        return Lab(
            attempt, policies, lease, clock, at_once=at_once, name="lab", listener=listener,
            count_call=lambda: finished.append(1),
        )  # fmt: skip

    return make


def counts(report):
    names = ("succeeded", "recovered", "fallback", "rejected", "unfinished")
    return {name: value for name in names if (value := getattr(report, name))}


async def answer_never():
    await asyncio.Event().wait()


async def cut_connection():
    raise ConnectionResetError("cut_connection")


async def unreachable():
    raise httpx.ConnectError("refused")


class TestCallReports:
    async def test_a_mixed_run_reports_each_call(self, make_lab, clock):
        report = await clock.drive(make_lab().run(4, MIXED))
        assert counts(report) == {"succeeded": 3, "fallback": 1}
        assert [(call.number, call.path, call.outcome, call.attempts) for call in report.calls] == [
            (1, "/get", "succeeded", 1),
            (2, "/delay/3", "succeeded", 1),
            (3, "/status/500", "fallback", 3),
            (4, "/get", "succeeded", 1),
        ]
        assert [call.duration_ms for call in report.calls] == [0.0, 3000.0, 200.0, 0.0]
        assert report.calls[2].error == "status 500"
        assert report.count == 4
        assert report.duration_ms == 3000.0

    async def test_a_call_saved_by_a_retry_is_recovered(self, make_lab, clock, provider):
        provider.instead = [cut_connection, unreachable]
        report = await clock.drive(make_lab().run(1, ("/get",)))
        assert counts(report) == {"recovered": 1}
        assert report.calls[0].attempts == 3
        assert report.calls[0].error is None

    async def test_a_call_that_hangs_is_stopped_each_time(self, make_lab, clock, provider):
        provider.instead = [answer_never] * 3
        report = await clock.drive(make_lab().run(1, ("/get",)))
        assert counts(report) == {"fallback": 1}
        assert report.calls[0].error == "the call took longer than 5 s"
        assert report.calls[0].duration_ms == 3 * TIMEOUT_SECONDS * 1000 + 200
        assert provider.open == 0

    async def test_a_slow_call_exceeds_the_attempt_limit_of_the_lab_though_not_that_of_the_api(
        self, make_lab, clock, listener
    ):
        report = await clock.drive(make_lab(attempt_seconds=ATTEMPT_SECONDS).run(1, SLOW))
        assert counts(report) == {"fallback": 1}
        assert report.calls[0].error == "the call took longer than 2 s"
        assert report.calls[0].attempts == 3
        assert [event.seconds for event in listener.of(TimedOut)] == [ATTEMPT_SECONDS] * 3

    async def test_a_provider_that_cannot_be_reached(self, make_lab, clock, provider):
        provider.instead = [unreachable] * 3
        report = await clock.drive(make_lab().run(1, ("/get",)))
        assert counts(report) == {"fallback": 1}
        assert report.calls[0].error == "no answer: ConnectError"

    async def test_a_client_error_of_the_provider_is_neither_retried_nor_a_failure(
        self, make_lab, clock, provider, breaker
    ):
        async def forbidden():
            return httpx.Response(403)

        provider.instead = [forbidden] * 10
        report = await clock.drive(make_lab().run(10, ("/get",)))
        assert counts(report) == {"fallback": 10}
        assert {call.attempts for call in report.calls} == {1}
        assert (await breaker.status()).state == "CLOSED"

    async def test_the_listener_gets_the_fallback_event(self, make_lab, clock, listener):
        await clock.drive(make_lab().run(2, FAILING))
        assert [(event.policy, str(event.error)) for event in listener.of(FellBack)] == [
            ("lab", "status 500")
        ] * 2


class TestRejections:
    async def test_failures_open_the_breaker_and_then_the_service_is_not_called(
        self, make_lab, clock, provider, breaker
    ):
        lab = make_lab()
        await clock.drive(lab.run(5, FAILING))
        assert (await breaker.status()).state == "OPEN"
        asked = provider.calls
        report = await clock.drive(lab.run(50, MIXED))
        assert counts(report) == {"rejected": 50}
        assert {call.rejected_by for call in report.calls} == {"circuit_breaker"}
        assert {call.attempts for call in report.calls} == {0}
        assert report.duration_ms == 0.0
        assert provider.calls == asked

    async def test_the_report_has_the_wait_for_the_limiter(self, make_lab, clock):
        report = await clock.drive(make_lab(rate=10).run(12, ("/get",)))
        assert counts(report) == {"succeeded": 12}
        assert [call.limiter_wait_ms for call in report.calls] == [0.0] * 10 + [100.0, 200.0]
        assert {call.bulkhead_wait_ms for call in report.calls} == {0.0}

    async def test_the_report_has_the_wait_for_the_bulkhead(self, make_lab, clock):
        report = await clock.drive(make_lab(permits=2).run(4, SLOW))
        assert counts(report) == {"succeeded": 4}
        assert [call.bulkhead_wait_ms for call in report.calls] == [0.0, 0.0, 3000.0, 3000.0]
        assert [call.duration_ms for call in report.calls] == [3000.0, 3000.0, 6000.0, 6000.0]
        assert {call.limiter_wait_ms for call in report.calls} == {0.0}

    async def test_a_wait_that_times_out_is_a_rejection_by_its_policy(self, make_lab, clock):
        limited = await clock.drive(make_lab(rate=1, max_wait_seconds=0.5).run(2, ("/get",)))
        assert [call.rejected_by for call in limited.calls] == [None, "rate_limiter"]
        crowded = await clock.drive(make_lab(permits=1, max_wait_seconds=0.5).run(2, SLOW))
        assert [call.rejected_by for call in crowded.calls] == [None, "bulkhead"]
        assert crowded.calls[1].bulkhead_wait_ms == 500.0
        assert counts(crowded) == {"succeeded": 1, "rejected": 1}


class TestLimits:
    async def test_the_concurrent_calls_of_a_run_are_limited(self, make_lab, clock, provider):
        report = await clock.drive(make_lab(at_once=3).run(7, SLOW))
        assert provider.most_open == 3
        assert counts(report) == {"succeeded": 7}
        assert {call.duration_ms for call in report.calls} == {3000.0}  # without the wait outside

    async def test_runs_share_the_limit_of_calls_and_a_rejected_run_has_a_retry_after(self, make_lab, clock):
        lab = make_lab()
        running = asyncio.create_task(lab.run(MAX_CALLS - 1, SLOW))
        await settle()
        await clock.advance(1)
        with pytest.raises(LabBusyError) as busy:
            await lab.run(2, MIXED)
        assert busy.value.retry_after == MAX_RUN_SECONDS - 1
        await clock.drive(lab.run(1, ("/get",)))
        await clock.drive(running)
        assert counts(await clock.drive(lab.run(MAX_CALLS, ("/get",)))) == {"succeeded": MAX_CALLS}

    async def test_a_run_ends_at_its_time_limit(self, make_lab, clock, provider):
        lab = make_lab(at_once=1)
        report = await clock.drive(lab.run(50, SLOW))
        assert report.duration_ms == MAX_RUN_SECONDS * 1000
        assert counts(report) == {"succeeded": 39, "unfinished": 11}
        assert len(report.calls) == 39
        assert provider.open == 0

    async def test_a_client_that_disconnects_leaves_no_call_running(self, make_lab, clock, provider):
        lab = make_lab(at_once=10)
        running = asyncio.create_task(lab.run(MAX_CALLS, SLOW))
        await settle()
        assert provider.open == 10
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert provider.open == 0
        assert provider.calls == 10
        report = await clock.drive(lab.run(MAX_CALLS, ("/get",)))
        assert counts(report) == {"succeeded": MAX_CALLS}


class TestStress:
    async def test_a_stress_test_keeps_its_concurrency_for_its_duration(self, make_lab, clock, provider):
        async def answer_after_a_tenth_of_a_second():
            await clock.sleep(0.1)
            return httpx.Response(200)

        provider.instead = [answer_after_a_tenth_of_a_second] * 1000
        report = await clock.drive(make_lab().stress(2, 3))
        assert provider.most_open == 3
        assert provider.open == 0
        assert report.duration_ms == 2000.0
        assert report.count == report.succeeded
        assert report.count in {57, 60}  # the last three end exactly at the timeout
        assert report.throughput_per_second == report.count / 2
        assert report.concurrency == 3
        assert report.p50_ms == pytest.approx(100, rel=0.01)
        assert report.p50_ms == report.p95_ms == report.p99_ms

    async def test_an_open_breaker_does_not_turn_a_stress_test_into_a_busy_loop(
        self, make_lab, clock, provider, breaker
    ):
        await breaker.force_open()
        report = await clock.drive(make_lab(rate=10).stress(2, 5))
        assert provider.calls == 0
        assert report.count == report.rejected
        assert 25 <= report.count <= 30  # 10 in the bucket at first, then 10 a second

    async def test_the_latency_of_an_open_breaker_is_reported_without_the_wait_for_the_limiter(
        self, make_lab, clock, breaker, finished
    ):
        await breaker.force_open()
        report = await clock.drive(make_lab(rate=10).stress(2, 5))
        assert report.p50_ms > 100
        assert report.rejected_p50_ms == report.rejected_p95_ms == 0.0
        assert len(finished) == report.count

    async def test_a_rejection_by_the_limiter_is_not_measured_as_a_latency(self, make_lab, clock):
        report = await clock.drive(make_lab(rate=1, max_wait_seconds=0.5).stress(1, 3))
        assert 0 < report.rejected <= 30  # each of the three callers pauses: the loop is not busy
        assert report.rejected_p50_ms is None

    async def test_hanging_calls_are_cancelled_at_the_end(self, make_lab, clock, provider):
        provider.instead = [answer_never] * 4
        report = await clock.drive(make_lab().stress(1, 4))
        assert counts(report) == {"unfinished": 4}
        assert report.count == 0
        assert report.p50_ms is report.p95_ms is report.p99_ms is None
        assert provider.open == 0

    async def test_one_stress_test_runs_at_a_time(self, make_lab, lease, provider):
        lease.held_for = 7.0
        with pytest.raises(LabBusyError) as busy:
            await make_lab().stress(1, 1)
        assert busy.value.retry_after == 7.0
        assert provider.calls == 0

    async def test_without_the_store_of_the_lease_no_stress_test_runs(self, make_lab, lease, provider):
        lease._away = True
        with pytest.raises(StorageUnavailableError):
            await make_lab().stress(1, 1)
        assert provider.calls == 0

    async def test_the_lease_is_released_even_if_the_client_disconnects(
        self, make_lab, clock, provider, lease
    ):
        lab = make_lab()
        await clock.drive(lab.stress(1, 1))
        assert lease.holders == []
        await clock.advance(1)  # the limiter has admitted all calls of the quota
        provider.instead = [answer_never] * 9
        running = asyncio.create_task(lab.stress(60, 9))
        await settle()
        assert len(lease.holders) == 1
        assert provider.open == 9
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert lease.holders == []
        assert provider.open == 0

    async def test_a_client_that_disconnects_while_the_lease_is_taken_releases_it(
        self, make_lab, lease, provider
    ):
        lease.answers.clear()
        running = asyncio.create_task(make_lab().stress(60, 9))
        await settle()
        running.cancel()
        await settle()
        lease.answers.set()
        await settle()
        assert running.cancelled()
        assert lease.holders == []
        assert provider.calls == 0


async def test_each_call_has_one_outcome(make_lab, clock, breaker):
    report = await clock.drive(make_lab().run(60, MIXED))
    assert sum(counts(report).values()) == 60 == len(report.calls)
    assert (await breaker.status()).state == "OPEN"
    assert asdict(report)["count"] == 60
