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


def in_turn(clock, *outcomes):
    """A call that takes no time and ends each attempt with the next outcome."""
    return ScriptedCall(clock, *((0, outcome) for outcome in outcomes))


def failures(events):
    """The results that events of failures carry."""
    return [event.error.result for event in events if isinstance(event.error, FailedResultError)]


def retry(clock, listener=lambda _: None, budget=None, **options):
    options = RetryOptions(**{"backoff": Fixed(1), "is_failure_result": is_failure} | options)
    return Retry(options, clock, SystemRandomizer(), listener=listener, budget=budget)


class TestRetry:
    async def test_a_failed_result_is_retried(self, clock, listener):
        call = in_turn(clock, UNAVAILABLE, ConnectionError(), OK)
        assert await clock.drive(retry(clock, listener).run(call)) is OK
        assert call.began == [0, 1, 2]
        assert failures(listener.of(Retried)) == [UNAVAILABLE]

    async def test_the_last_result_is_returned_where_all_failed(self, clock, listener):
        last = Response(502)
        assert (
            await clock.drive(retry(clock, listener).run(in_turn(clock, UNAVAILABLE, UNAVAILABLE, last)))
            is last
        )
        assert failures(listener.of(RetriesExhausted)) == [last]

    async def test_the_last_error_is_raised_where_the_last_attempt_had_one(self, clock):
        with pytest.raises(ConnectionError):
            await clock.drive(retry(clock, attempts=2).run(in_turn(clock, UNAVAILABLE, ConnectionError())))

    async def test_a_result_that_names_a_time_is_retried_no_sooner(self, clock):
        call = in_turn(clock, Response(503, retry_after=7), OK)
        assert await clock.drive(retry(clock).run(call)) is OK
        assert call.began == [0, 7]

    async def test_time_and_budget_limit_these_retries_too(self, clock):
        assert await retry(clock, total_seconds=1).run(in_turn(clock, UNAVAILABLE)) is UNAVAILABLE
        budget = RetryBudget(share=0.1, reserve=1)
        call = in_turn(clock, UNAVAILABLE, UNAVAILABLE)
        assert await clock.drive(retry(clock, budget=budget).run(call)) is UNAVAILABLE
        assert len(call.began) == 2

    async def test_an_error_of_the_judge_goes_to_the_caller(self, clock):
        policy = retry(clock, is_failure_result=lambda response: response.missing)
        with pytest.raises(AttributeError):
            await policy.run(in_turn(clock, OK))

    async def test_without_a_judge_every_result_is_a_success(self, clock):
        assert await retry(clock, is_failure_result=None).run(in_turn(clock, UNAVAILABLE)) is UNAVAILABLE


def breaker(clock, listener=lambda _: None, judge=is_failure):
    options = CircuitBreakerOptions(failure_threshold=2, open_seconds=10)
    return CircuitBreaker(
        "breaker", MemoryBreakerStore(clock), options, clock, listener=listener, is_failure_result=judge
    )


class TestCircuitBreaker:
    async def test_a_failed_result_is_returned_and_counted(self, clock):
        policy = breaker(clock)
        for _ in range(2):
            assert await policy.run(in_turn(clock, UNAVAILABLE)) is UNAVAILABLE
        with pytest.raises(CircuitOpenError) as rejected:
            await policy.run(in_turn(clock, OK))
        assert rejected.value.__cause__.result is UNAVAILABLE

    async def test_another_result_ends_the_failures_in_a_row(self, clock):
        policy = breaker(clock)
        for response in (UNAVAILABLE, OK, UNAVAILABLE):
            await policy.run(in_turn(clock, response))
        assert (await policy.status()).failure_count == 1

    async def test_a_probe_with_a_failed_result_opens_it_again(self, clock, listener):
        policy = breaker(clock, listener)
        for _ in range(2):
            await policy.run(in_turn(clock, UNAVAILABLE))
        clock.jump(10)
        assert await policy.run(in_turn(clock, UNAVAILABLE)) is UNAVAILABLE
        assert len(listener.of(ProbeStarted)) == 1
        assert (await policy.status()).state == "OPEN"

    async def test_an_error_of_the_judge_gives_the_probes_permit_back(self, clock):
        policy = breaker(clock)
        for _ in range(2):
            await policy.run(in_turn(clock, UNAVAILABLE))
        clock.jump(10)
        policy._is_failure_result = lambda response: response.missing
        with pytest.raises(AttributeError):
            await policy.run(in_turn(clock, OK))
        policy._is_failure_result = is_failure
        assert await policy.run(in_turn(clock, OK)) is OK
        assert (await policy.status()).state == "CLOSED"


class TestFallback:
    async def test_a_failed_result_is_replaced_by_a_substitute(self, clock, listener):
        policy = Fallback(always(OK), is_failure_result=is_failure, listener=listener)
        assert await policy.run(in_turn(clock, UNAVAILABLE)) is OK
        assert failures(listener.of(FellBack)) == [UNAVAILABLE]

    async def test_the_substitute_gets_the_result_in_an_error(self, clock):
        policy = Fallback(lambda error: error.result.status, is_failure_result=is_failure)
        assert await policy.run(in_turn(clock, UNAVAILABLE)) == 503

    async def test_it_is_handled_whatever_errors_are(self, clock):
        policy = Fallback(always(OK), handles=(LookupError,), is_failure_result=is_failure)
        assert await policy.run(in_turn(clock, UNAVAILABLE)) is OK

    async def test_another_result_is_returned(self, clock):
        assert await Fallback(always(None), is_failure_result=is_failure).run(in_turn(clock, OK)) is OK

    async def test_the_next_substitute_is_tried_and_the_last_error_raised(self, clock):
        def first(error):
            raise LookupError

        def last(error):
            raise KeyError(error.result.status)

        with pytest.raises(KeyError, match="503"):
            await Fallback(first, last, is_failure_result=is_failure).run(in_turn(clock, UNAVAILABLE))


def hedging(clock, listener=lambda _: None, attempts=2):
    options = HedgingOptions(delay_seconds=1, attempts=attempts, is_failure_result=is_failure)
    return Hedging(options, clock, name="hedge", listener=listener)


class TestHedging:
    async def test_a_failed_result_is_no_winner_while_another_attempt_is_under_way(self, clock):
        listener = RecordingListener()
        call = ScriptedCall(clock, (3, OK), (1, UNAVAILABLE))
        assert await clock.drive(hedging(clock, listener).run(call)) is OK
        assert clock.monotonic() == 3
        assert listener.events[0] == Hedged(policy="hedge", attempt=2)
        assert failures(listener.of(HedgedAttemptFailed)) == [UNAVAILABLE]
        assert not listener.of(HedgeWon)

    async def test_the_first_attempts_failed_result_waits_for_the_other_attempt(self, clock):
        listener = RecordingListener()
        call = ScriptedCall(clock, (2, UNAVAILABLE), (5, OK))
        assert await clock.drive(hedging(clock, listener).run(call)) is OK
        assert clock.monotonic() == 6
        assert failures(listener.of(HedgedAttemptFailed)) == [UNAVAILABLE]
        assert listener.of(HedgeWon) == [HedgeWon(policy="hedge", attempt=2)]

    async def test_a_failed_result_in_time_begins_no_attempt(self, clock):
        call = ScriptedCall(clock, (0.5, UNAVAILABLE))
        assert await clock.drive(hedging(clock).run(call)) is UNAVAILABLE
        assert call.began == [0]

    @pytest.mark.parametrize(
        ("first", "second"), [((2, UNAVAILABLE), (5, Response(502))), ((9, Response(502)), (2, UNAVAILABLE))]
    )
    async def test_where_all_failed_the_last_result_is_returned(self, clock, first, second):
        listener = RecordingListener()
        call = ScriptedCall(clock, first, second)
        assert await clock.drive(hedging(clock, listener).run(call)) == Response(502)
        assert failures(listener.of(HedgedAttemptFailed)) == [UNAVAILABLE]
        assert not listener.of(HedgeWon)

    async def test_where_the_last_attempt_failed_by_an_error_that_is_raised(self, clock):
        call = ScriptedCall(clock, (2, UNAVAILABLE), (5, ConnectionError()))
        with pytest.raises(ConnectionError):
            await clock.drive(hedging(clock).run(call))

    async def test_an_error_of_the_judge_ends_its_attempt(self, clock):
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
    call = in_turn(clock, *[UNAVAILABLE] * 4)
    assert [await clock.drive(policy.run(call)) for _ in range(3)] == ["old"] * 3
    assert len(call.began) == 4, "the third call was rejected by the breaker"


async def test_the_error_shows_the_beginning_of_the_result():
    assert str(FailedResultError(UNAVAILABLE)) == f"the result counts as a failure: {UNAVAILABLE!r}"
    assert len(str(FailedResultError("x" * 10_000))) < 150


async def test_two_tasks_judge_their_own_results(clock):
    policy = retry(clock, attempts=1)
    assert await asyncio.gather(policy.run(in_turn(clock, OK)), policy.run(in_turn(clock, UNAVAILABLE))) == [
        OK,
        UNAVAILABLE,
    ]
