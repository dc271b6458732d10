"""The retry policy and its backoffs."""

import asyncio
import gc
import math
import weakref

import pytest

from src.resilience.errors import AttemptRefusedError
from src.resilience.events import Retried, RetriesExhausted
from src.resilience.retry import (
    IMMEDIATE,
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    JitterAround,
    Linear,
    Retry,
    RetryBudget,
    RetryOptions,
)
from tests.support.clock import FakeClock, FakeRandomizer
from tests.support.listener import RecordingListener


class Flaky:
    """A call that fails a number of times, then returns the number of the attempt."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.begun = 0
        self._failures = failures
        self.error = error or ConnectionError("no")

    async def __call__(self) -> int:
        self.begun += 1
        if self.begun <= self._failures:
            raise self.error
        return self.begun


def error_with_retry_after(seconds: object) -> Exception:
    error = ConnectionError("later")
    error.retry_after = seconds
    return error


def retry(clock: FakeClock, budget: RetryBudget | None = None, listener=lambda _: None, **options) -> Retry:
    options = RetryOptions(**{"attempts": 3, "backoff": Fixed(1.0), **options})
    return Retry(options, clock, FakeRandomizer(), budget=budget, name="external", listener=listener)


class TestAttempts:
    async def test_a_call_that_succeeds_runs_once(self, clock: FakeClock):
        call = Flaky(failures=0)

        assert await retry(clock).run(call) == 1
        assert clock.sleeps == []

    async def test_a_failed_call_runs_again_after_the_backoff(self, clock: FakeClock):
        call = Flaky(failures=2)

        assert await clock.drive(retry(clock).run(call)) == 3
        assert clock.sleeps == [1.0, 1.0]

    async def test_the_last_error_is_raised_unchanged(self, clock: FakeClock):
        call = Flaky(failures=9)

        with pytest.raises(ConnectionError) as raised:
            await clock.drive(retry(clock).run(call))

        assert raised.value is call.error
        assert call.begun == 3

    async def test_each_step_sends_an_event(self, clock: FakeClock, listener: RecordingListener):
        call = Flaky(failures=9)

        with pytest.raises(ConnectionError):
            await clock.drive(retry(clock, listener=listener, attempts=2).run(call))

        assert listener.events == [
            Retried(policy="external", attempt=1, delay=1.0, error=call.error),
            RetriesExhausted(policy="external", attempts=2, error=call.error),
        ]

    async def test_with_one_attempt_there_is_no_retry(self, clock: FakeClock):
        call = Flaky(failures=1)

        with pytest.raises(ConnectionError):
            await retry(clock, attempts=1).run(call)


class TestWhichErrors:
    @pytest.mark.parametrize(
        "predicates",
        [
            {"retry_on": lambda error: isinstance(error, TimeoutError)},
            {"abort_on": lambda error: isinstance(error, ConnectionError)},
            {"retry_on": lambda error: True, "abort_on": lambda error: True},
            {"retry_on": TimeoutError},
            {"abort_on": OSError},
            {"retry_on": OSError, "abort_on": (ValueError, ConnectionError)},
            {"retry_on": ()},
        ],
    )
    async def test_an_error_that_is_not_retryable_is_raised_at_once(
        self, clock: FakeClock, listener: RecordingListener, predicates: dict
    ):
        call = Flaky(failures=1)

        with pytest.raises(ConnectionError):
            await retry(clock, listener=listener, **predicates).run(call)

        assert call.begun == 1
        assert listener.events == []

    async def test_errors_of_these_classes_are_retried(self, clock: FakeClock):
        policy = retry(clock, retry_on=(TimeoutError, OSError), abort_on=ValueError)
        assert await clock.drive(policy.run(Flaky(failures=1))) == 2

    @pytest.mark.parametrize("option", ["retry_on", "abort_on"])
    @pytest.mark.parametrize("wrong", [None, [OSError], (OSError, "OSError"), int])
    def test_what_selects_no_errors_is_refused(self, option: str, wrong: object):
        with pytest.raises(TypeError, match=f"{option} must be a function or exception classes, not"):
            RetryOptions(**{option: wrong})

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
    async def test_a_base_exception_is_never_retried(self, clock: FakeClock, error: BaseException):
        call = Flaky(failures=1, error=error)

        with pytest.raises(type(error)):
            await retry(clock).run(call)

        assert call.begun == 1

    async def test_a_cancellation_ends_the_wait_between_attempts(self, clock: FakeClock):
        call = Flaky(failures=9)
        caller = asyncio.create_task(retry(clock).run(call))
        await clock.advance(0.5)

        caller.cancel()
        await clock.advance(10)

        assert caller.cancelled()
        assert call.begun == 1


class TestTime:
    async def test_no_wait_begins_that_would_exceed_the_total_time(
        self, clock: FakeClock, listener: RecordingListener
    ):
        call = Flaky(failures=9)

        with pytest.raises(ConnectionError):
            await clock.drive(retry(clock, listener=listener, attempts=9, total_seconds=2.5).run(call))

        assert clock.monotonic() == 2.0
        assert listener.of(RetriesExhausted)[0].attempts == 3

    async def test_the_duration_of_attempts_counts_towards_the_total_time(self, clock: FakeClock):
        begun = 0

        async def slow() -> None:
            nonlocal begun
            begun += 1
            await clock.sleep(2.0)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await clock.drive(retry(clock, attempts=9, total_seconds=5.0).run(slow))

        assert begun == 2

    @pytest.mark.parametrize(
        ("asked", "waited"),
        [(2.5, 2.5), (0.5, 1.0), (3, 3.0), (math.nan, 1.0), (-1, 1.0), (None, 1.0), ("soon", 1.0)],
    )
    async def test_the_next_attempt_waits_for_the_retry_after_of_the_error(
        self, clock: FakeClock, asked: object, waited: float
    ):
        await clock.drive(retry(clock).run(Flaky(failures=1, error=error_with_retry_after(asked))))

        assert clock.sleeps == [waited]

    @pytest.mark.parametrize("asked", [30.0, math.inf])
    async def test_an_error_whose_retry_after_exceeds_the_total_time_is_raised_at_once(
        self, clock: FakeClock, asked: float
    ):
        call = Flaky(failures=1, error=error_with_retry_after(asked))

        with pytest.raises(ConnectionError):
            await retry(clock).run(call)


class TestARefusedAttempt:
    async def test_the_error_of_the_attempt_before_is_raised(self, clock: FakeClock):
        listener, call = RecordingListener(), RefusesAnother()
        with pytest.raises(ConnectionError, match="no") as raised:
            await clock.drive(retry(clock, listener=listener).run(call))
        assert raised.value.__context__ is None
        assert [type(event) for event in listener.events][-2:] == [Retried, RetriesExhausted]
        assert listener.of(RetriesExhausted)[0].attempts == 1

    async def test_a_failed_result_of_the_attempt_before_is_returned(self, clock: FakeClock):
        answers = iter([503])

        async def call():
            for answer in answers:
                return answer
            raise AttemptRefusedError("bank", "it may have been paid", None)

        policy = retry(clock, is_failure_result=lambda answer: answer == 503)
        assert await clock.drive(policy.run(call)) == 503

    async def test_it_gives_back_its_part_of_the_budget(self, clock: FakeClock):
        budget = RetryBudget(share=0.001, reserve=1)
        with pytest.raises(ConnectionError):
            await clock.drive(retry(clock, budget).run(RefusesAnother()))
        assert budget.take_retry()

    async def test_without_an_attempt_before_it_is_raised_and_not_retried(self, clock: FakeClock):
        call = Flaky(9, AttemptRefusedError("bank", "it may have been paid", None))
        with pytest.raises(AttemptRefusedError):
            await clock.drive(retry(clock).run(call))
        assert call.begun == 1

    async def test_no_error_is_left_for_the_garbage_collector(self, clock: FakeClock):
        errors = []

        class NotedError(ConnectionError):
            def __init__(self) -> None:
                errors.append(weakref.ref(self))

        async def call():
            if len(errors) == 2:
                return "answer"
            raise NotedError

        gc.disable()
        try:
            assert await clock.drive(retry(clock).run(call)) == "answer"
            assert [error() for error in errors] == [None, None]
        finally:
            gc.enable()


class RefusesAnother(Flaky):
    """Fails once, and refuses another attempt."""

    def __init__(self) -> None:
        super().__init__(failures=1)

    async def __call__(self) -> int:
        if self.begun:
            raise AttemptRefusedError("bank", "it may have been paid", None)
        return await super().__call__()


class TestBudget:
    async def test_errors_are_raised_at_once_if_the_budget_is_spent(self, clock: FakeClock):
        budget = RetryBudget(share=0.5, reserve=2)
        policy = retry(clock, budget, attempts=2)

        calls = [Flaky(failures=9) for _ in range(10)]
        for call in calls:
            with pytest.raises(ConnectionError):
                await clock.drive(policy.run(call))

        retries = [call.begun - 1 for call in calls]
        assert retries[:2] == [1, 1]
        assert sum(retries) <= 2 + 0.5 * 10
        assert sum(retries[4:]) == 3, "half of the last six"

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *(("share", value) for value in (0, -1, 1.1, math.nan)),
            *(("reserve", value) for value in (0, math.inf, math.nan)),
        ],
    )
    def test_an_error_names_the_invalid_option(self, option: str, value: float):
        with pytest.raises(ValueError, match=option):
            RetryBudget(**{option: value})


class TestBackoffs:
    @pytest.mark.parametrize(
        ("backoff", "draw", "delays"),
        [
            (IMMEDIATE, 0.5, [0, 0, 0, 0]),
            (Fixed(0.3), 0.5, [0.3, 0.3, 0.3, 0.3]),
            (Linear(2, cap_seconds=5), 0.5, [2, 4, 5, 5]),
            (Exponential(1, cap_seconds=6), 0.5, [1, 2, 4, 6]),
            (Exponential(1, cap_seconds=100, factor=3), 0.5, [1, 3, 9, 27]),
            (FullJitter(Exponential(1, cap_seconds=6)), 0.25, [0.25, 0.5, 1, 1.5]),
            (EqualJitter(Exponential(1, cap_seconds=6)), 0.5, [0.75, 1.5, 3, 4.5]),
            (DecorrelatedJitter(1, cap_seconds=6), 0.5, [2, 3.5, 5.75, 6]),
        ],
    )
    def test_delays_follow_the_formula(self, backoff: Backoff, draw: float, delays: list[float]):
        randomizer, previous, seen = FakeRandomizer([draw]), 0.0, []
        for attempt in range(1, 5):
            previous = backoff.delay(attempt, previous, randomizer)
            seen.append(previous)

        assert seen == pytest.approx(delays)

    def test_an_exponential_backoff_stays_at_its_maximum(self):
        assert Exponential(1, cap_seconds=6, factor=10).delay(10_000, 6, FakeRandomizer()) == 6

    @pytest.mark.parametrize("value", [-1, math.inf, math.nan])
    @pytest.mark.parametrize(
        ("make", "option"),
        [
            (Fixed, "seconds"),
            (lambda value: Linear(value, 1), "step_seconds"),
            (lambda value: Linear(1, value), "cap_seconds"),
            (lambda value: Exponential(value, 1), "base_seconds"),
            (lambda value: Exponential(1, value), "cap_seconds"),
            (lambda value: Exponential(1, 1, value), "factor"),
            (lambda value: DecorrelatedJitter(value, 1), "base_seconds"),
            (lambda value: DecorrelatedJitter(1, value), "cap_seconds"),
        ],
    )
    def test_an_error_names_the_invalid_option(self, make, option: str, value: float):
        with pytest.raises(ValueError, match=option):
            make(value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("attempts", value) for value in (0, -1, math.nan)),
        *(("total_seconds", value) for value in (0, -1, math.inf, math.nan)),
    ],
)
def test_an_error_names_the_invalid_option(option: str, value: float):
    with pytest.raises(ValueError, match=option):
        RetryOptions(**{option: value})


class TestDelay:
    """A delay that depends on the error or result of the attempt."""

    async def test_a_function_of_the_error_and_the_backoff_returns_the_delay(self, clock: FakeClock):
        asked: list[tuple[object, float]] = []

        def delay_of(outcome: object, wait: float) -> float:
            asked.append((outcome, wait))
            return 7.0

        call = Flaky(failures=1, error=error_with_retry_after(60))
        assert await clock.drive(retry(clock, delay_of=delay_of).run(call)) == 2
        assert clock.sleeps == [7.0]
        assert asked == [(call.error, 1.0)]

    async def test_the_delay_function_also_gets_a_failed_result(self, clock: FakeClock):
        results = [429, 200]

        async def call() -> int:
            return results.pop(0)

        policy = retry(
            clock,
            is_failure_result=lambda status: status == 429,
            delay_of=lambda outcome, wait: 3.0 if outcome == 429 else wait,
        )
        assert await clock.drive(policy.run(call)) == 200
        assert clock.sleeps == [3.0]


class TestJitterAround:
    @pytest.mark.parametrize(("draw", "wait"), [(0.0, 0.75), (0.4, 0.95), (0.6, 1.05), (1.0, 1.25)])
    def test_a_constant_wait_varies_by_a_quarter_as_in_polly(self, draw: float, wait: float):
        """The case is RetryHelperTests.Constant_Jitter_Ok of Polly."""
        assert JitterAround(Fixed(1.0), 0.25).delay(1, 0.0, FakeRandomizer([draw])) == pytest.approx(wait)

    @pytest.mark.parametrize("share", [0, -0.1, 1.1])
    def test_a_share_out_of_range_is_rejected(self, share: float):
        with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
            JitterAround(Fixed(1.0), share)
