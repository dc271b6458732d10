"""Results that count as failures, such as a response with status 503."""

import asyncio
from dataclasses import dataclass

import pytest

from src.resilience import (
    CircuitBreaker,
    CircuitBreakerOptions,
    CircuitOpenError,
    Fallback,
    Fixed,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    Pipeline,
    Retry,
    RetryOptions,
    always,
)
from src.resilience.clock import SystemRandomizer
from src.resilience.errors import FailedResultError
from src.resilience.events import (
    FellBack,
    Hedged,
    HedgedAttemptFailed,
    HedgeWon,
    ProbeStarted,
    Retried,
    RetriesExhausted,
)
from src.resilience.retry import RetryBudget
from tests.support.calls import ScriptedCall
from tests.support.listener import RecordingListener


@dataclass(frozen=True)
class Response:
    status: int
    retry_after: float | None = None


OK, UNAVAILABLE = Response(200), Response(503)


def is_failure(response):
    return response.status >= 500


def call_with_outcomes(clock, *outcomes):
    """Return a call that ends each attempt at once with the next outcome."""
    return ScriptedCall(clock, *((0, outcome) for outcome in outcomes))


def results_of_failures(events):
    """Return the results in events of failures."""
    return [event.error.result for event in events if isinstance(event.error, FailedResultError)]


def retry(clock, listener=lambda _: None, budget=None, **options):
    options = RetryOptions(**{"backoff": Fixed(1), "is_failure_result": is_failure} | options)
    return Retry(options, clock, SystemRandomizer(), listener=listener, budget=budget)


class TestRetry:
    async def test_a_failed_result_is_retried(self, clock, listener):
        call = call_with_outcomes(clock, UNAVAILABLE, ConnectionError(), OK)
        assert await clock.drive(retry(clock, listener).run(call)) is OK
        assert call.began == [0, 1, 2]
        assert results_of_failures(listener.of(Retried)) == [UNAVAILABLE]

    async def test_the_last_result_is_returned_if_all_attempts_failed(self, clock, listener):
        last = Response(502)
        assert (
            await clock.drive(
                retry(clock, listener).run(call_with_outcomes(clock, UNAVAILABLE, UNAVAILABLE, last))
            )
            is last
        )
        assert results_of_failures(listener.of(RetriesExhausted)) == [last]

    async def test_the_error_of_the_last_attempt_is_raised(self, clock):
        with pytest.raises(ConnectionError):
            await clock.drive(
                retry(clock, attempts=2).run(call_with_outcomes(clock, UNAVAILABLE, ConnectionError()))
            )

    async def test_the_retry_waits_for_the_retry_after_of_a_result(self, clock):
        call = call_with_outcomes(clock, Response(503, retry_after=7), OK)
        assert await clock.drive(retry(clock).run(call)) is OK
        assert call.began == [0, 7]

    async def test_total_time_and_budget_limit_retries_of_failed_results(self, clock):
        assert await retry(clock, total_seconds=1).run(call_with_outcomes(clock, UNAVAILABLE)) is UNAVAILABLE
        budget = RetryBudget(share=0.1, reserve=1)
        call = call_with_outcomes(clock, UNAVAILABLE, UNAVAILABLE)
        assert await clock.drive(retry(clock, budget=budget).run(call)) is UNAVAILABLE
        assert len(call.began) == 2

    async def test_an_error_of_the_predicate_is_raised(self, clock):
        policy = retry(clock, is_failure_result=lambda response: response.missing)
        with pytest.raises(AttributeError):
            await policy.run(call_with_outcomes(clock, OK))

    async def test_without_a_predicate_every_result_is_a_success(self, clock):
        assert (
            await retry(clock, is_failure_result=None).run(call_with_outcomes(clock, UNAVAILABLE))
            is UNAVAILABLE
        )


def breaker(clock, listener=lambda _: None, judge=is_failure):
    options = CircuitBreakerOptions(failure_threshold=2, open_seconds=10)
    return CircuitBreaker(
        "breaker", MemoryBreakerStore(clock), options, clock, listener=listener, is_failure_result=judge
    )


class TestCircuitBreaker:
    async def test_a_failed_result_is_returned_and_counted(self, clock):
        policy = breaker(clock)
        for _ in range(2):
            assert await policy.run(call_with_outcomes(clock, UNAVAILABLE)) is UNAVAILABLE
        with pytest.raises(CircuitOpenError) as rejected:
            await policy.run(call_with_outcomes(clock, OK))
        assert rejected.value.__cause__.result is UNAVAILABLE

    async def test_a_successful_result_ends_consecutive_failures(self, clock):
        policy = breaker(clock)
        for response in (UNAVAILABLE, OK, UNAVAILABLE):
            await policy.run(call_with_outcomes(clock, response))
        assert (await policy.status()).failure_count == 1

    async def test_a_probe_with_a_failed_result_opens_the_breaker_again(self, clock, listener):
        policy = breaker(clock, listener)
        for _ in range(2):
            await policy.run(call_with_outcomes(clock, UNAVAILABLE))
        clock.jump(10)
        assert await policy.run(call_with_outcomes(clock, UNAVAILABLE)) is UNAVAILABLE
        assert len(listener.of(ProbeStarted)) == 1
        assert (await policy.status()).state == "OPEN"

    async def test_a_probe_gives_its_permit_back_if_the_predicate_raises(self, clock):
        policy = breaker(clock)
        for _ in range(2):
            await policy.run(call_with_outcomes(clock, UNAVAILABLE))
        clock.jump(10)
        policy._is_failure_result = lambda response: response.missing
        with pytest.raises(AttributeError):
            await policy.run(call_with_outcomes(clock, OK))
        policy._is_failure_result = is_failure
        assert await policy.run(call_with_outcomes(clock, OK)) is OK
        assert (await policy.status()).state == "CLOSED"


class TestFallback:
    async def test_a_failed_result_is_replaced_by_a_substitute(self, clock, listener):
        policy = Fallback(always(OK), is_failure_result=is_failure, listener=listener)
        assert await policy.run(call_with_outcomes(clock, UNAVAILABLE)) is OK
        assert results_of_failures(listener.of(FellBack)) == [UNAVAILABLE]

    async def test_the_substitute_gets_the_result_in_an_error(self, clock):
        policy = Fallback(lambda error: error.result.status, is_failure_result=is_failure)
        assert await policy.run(call_with_outcomes(clock, UNAVAILABLE)) == 503

    async def test_a_failed_result_is_replaced_independent_of_the_handled_errors(self, clock):
        policy = Fallback(always(OK), handles=(LookupError,), is_failure_result=is_failure)
        assert await policy.run(call_with_outcomes(clock, UNAVAILABLE)) is OK

    async def test_a_successful_result_is_returned(self, clock):
        assert (
            await Fallback(always(None), is_failure_result=is_failure).run(call_with_outcomes(clock, OK))
            is OK
        )

    async def test_the_next_substitute_is_tried_and_the_last_error_raised(self, clock):
        def first(error):
            raise LookupError

        def last(error):
            raise KeyError(error.result.status)

        with pytest.raises(KeyError, match="503"):
            await Fallback(first, last, is_failure_result=is_failure).run(
                call_with_outcomes(clock, UNAVAILABLE)
            )


def hedging(clock, listener=lambda _: None, attempts=2):
    options = HedgingOptions(delay_seconds=1, attempts=attempts, is_failure_result=is_failure)
    return Hedging(options, clock, name="hedge", listener=listener)


class TestHedging:
    async def test_a_failed_result_is_not_returned_while_another_attempt_runs(self, clock):
        listener = RecordingListener()
        call = ScriptedCall(clock, (3, OK), (1, UNAVAILABLE))
        assert await clock.drive(hedging(clock, listener).run(call)) is OK
        assert clock.monotonic() == 3
        assert listener.events[0] == Hedged(policy="hedge", attempt=2)
        assert results_of_failures(listener.of(HedgedAttemptFailed)) == [UNAVAILABLE]
        assert not listener.of(HedgeWon)

    async def test_the_first_attempts_failed_result_waits_for_the_other_attempt(self, clock):
        listener = RecordingListener()
        call = ScriptedCall(clock, (2, UNAVAILABLE), (5, OK))
        assert await clock.drive(hedging(clock, listener).run(call)) is OK
        assert clock.monotonic() == 6
        assert results_of_failures(listener.of(HedgedAttemptFailed)) == [UNAVAILABLE]
        assert listener.of(HedgeWon) == [HedgeWon(policy="hedge", attempt=2)]

    async def test_a_failed_result_in_time_begins_no_attempt(self, clock):
        call = ScriptedCall(clock, (0.5, UNAVAILABLE))
        assert await clock.drive(hedging(clock).run(call)) is UNAVAILABLE
        assert call.began == [0]

    @pytest.mark.parametrize(
        ("first", "second"), [((2, UNAVAILABLE), (5, Response(502))), ((9, Response(502)), (2, UNAVAILABLE))]
    )
    async def test_the_last_failed_result_is_returned_if_all_attempts_failed(self, clock, first, second):
        listener = RecordingListener()
        call = ScriptedCall(clock, first, second)
        assert await clock.drive(hedging(clock, listener).run(call)) == Response(502)
        assert results_of_failures(listener.of(HedgedAttemptFailed)) == [UNAVAILABLE]
        assert not listener.of(HedgeWon)

    async def test_the_error_of_the_last_failed_attempt_is_raised(self, clock):
        call = ScriptedCall(clock, (2, UNAVAILABLE), (5, ConnectionError()))
        with pytest.raises(ConnectionError):
            await clock.drive(hedging(clock).run(call))

    async def test_an_error_of_the_predicate_ends_its_attempt(self, clock):
        options = HedgingOptions(delay_seconds=1, is_failure_result=lambda response: response.missing)
        call = ScriptedCall(clock, (2, OK), (2, OK))
        with pytest.raises(AttributeError):
            await clock.drive(Hedging(options, clock).run(call))


async def test_a_pipeline_retries_counts_and_answers_failed_results_like_errors(clock):
    policy = Pipeline(
        Fallback(always("old"), is_failure_result=is_failure),
        breaker(clock),
        retry(clock, attempts=2),
    )
    call = call_with_outcomes(clock, *[UNAVAILABLE] * 4)
    assert [await clock.drive(policy.run(call)) for _ in range(3)] == ["old"] * 3
    assert len(call.began) == 4, "the third call was rejected by the breaker"


async def test_the_error_shows_the_beginning_of_the_result():
    assert str(FailedResultError(UNAVAILABLE)) == f"the result counts as a failure: {UNAVAILABLE!r}"
    assert len(str(FailedResultError("x" * 10_000))) < 150


async def test_two_tasks_evaluate_their_own_results(clock):
    policy = retry(clock, attempts=1)
    assert await asyncio.gather(
        policy.run(call_with_outcomes(clock, OK)), policy.run(call_with_outcomes(clock, UNAVAILABLE))
    ) == [
        OK,
        UNAVAILABLE,
    ]
