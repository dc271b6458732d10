"""The hedging policy."""

import asyncio
import contextvars
import math
from collections.abc import Awaitable

import pytest

from src.resilience.events import Hedged, HedgedAttemptFailed, HedgeWon
from src.resilience.hedging import LATENCIES_NEEDED, Hedging, HedgingOptions
from tests.support.calls import CANCELLED, ScriptedCall
from tests.support.clock import FakeClock, settle
from tests.support.listener import RecordingListener


def service_with_attempts(clock: FakeClock, *attempts: tuple[float, object]) -> ScriptedCall:
    """Return a call whose attempts take the given seconds and raise the error, or return their number."""
    return ScriptedCall(
        clock, *((seconds, error or number) for number, (seconds, error) in enumerate(attempts, 1))
    )


def hedging(clock: FakeClock, attempts: int = 2, listener=lambda _: None) -> Hedging:
    options = HedgingOptions(delay_seconds=1.0, attempts=attempts)
    return Hedging(options, clock, name="external", listener=listener)


class TestSlowness:
    async def test_a_call_that_answers_in_time_runs_once(self, clock: FakeClock, listener: RecordingListener):
        service = service_with_attempts(clock, (0.9, None))

        assert await clock.drive(hedging(clock, listener=listener).run(service)) == 1
        assert service.began == [0.0]
        assert listener.events == []

    async def test_a_slow_call_gets_a_second_attempt_and_the_first_result_is_returned(
        self, clock: FakeClock, listener: RecordingListener
    ):
        service = service_with_attempts(clock, (60, None), (0.5, None))

        assert await clock.drive(hedging(clock, listener=listener).run(service)) == 2
        assert clock.monotonic() == 1.5
        assert service.began == [0.0, 1.0]
        assert listener.events == [
            Hedged(policy="external", attempt=2),
            HedgeWon(policy="external", attempt=2),
        ]

    async def test_the_first_attempt_may_answer_first(self, clock: FakeClock, listener: RecordingListener):
        service = service_with_attempts(clock, (1.2, None), (0.5, None))

        assert await clock.drive(hedging(clock, listener=listener).run(service)) == 1
        assert service.cancelled == [2]
        assert listener.events == [Hedged(policy="external", attempt=2)]

    async def test_of_two_simultaneous_results_the_earlier_attempt_counts(self, clock: FakeClock):
        both = asyncio.Event()
        begun = 0

        async def call() -> int:
            nonlocal begun
            begun += 1
            number = begun
            await both.wait()
            return number

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(1.0)
        both.set()

        assert await caller == 1

    async def test_each_further_attempt_waits_for_the_delay_up_to_the_maximum(self, clock: FakeClock):
        service = service_with_attempts(clock, *[(60, None)] * 3)

        assert await clock.drive(hedging(clock, attempts=3).run(service)) == 1
        assert service.began == [0.0, 1.0, 2.0]
        assert clock.monotonic() == 60.0


class TestFailures:
    async def test_a_failure_of_the_only_attempt_is_raised_at_once(
        self, clock: FakeClock, listener: RecordingListener
    ):
        error = ConnectionError("no")
        service = service_with_attempts(clock, (0.5, error))

        with pytest.raises(ConnectionError) as raised:
            await clock.drive(hedging(clock, listener=listener).run(service))

        assert raised.value is error
        assert service.began == [0.0]
        assert listener.events == []

    async def test_a_running_attempt_replaces_a_failed_one(
        self, clock: FakeClock, listener: RecordingListener
    ):
        error = ConnectionError("no")
        service = service_with_attempts(clock, (1.2, error), (1.0, None))

        assert await clock.drive(hedging(clock, listener=listener).run(service)) == 2
        assert listener.events == [
            Hedged(policy="external", attempt=2),
            HedgedAttemptFailed(policy="external", attempt=1, error=error),
            HedgeWon(policy="external", attempt=2),
        ]

    async def test_a_failure_does_not_delay_the_next_attempt(self, clock: FakeClock):
        service = service_with_attempts(clock, (60, None), (0.5, ConnectionError()), (0.5, None))

        assert await clock.drive(hedging(clock, attempts=3).run(service)) == 3
        assert service.began == [0.0, 1.0, 2.0]

    async def test_when_all_fail_the_last_error_is_raised(
        self, clock: FakeClock, listener: RecordingListener
    ):
        first, second = ConnectionError("first"), TimeoutError("second")
        service = service_with_attempts(clock, (2.0, first), (0.5, second))

        with pytest.raises(ConnectionError) as raised:
            await clock.drive(hedging(clock, listener=listener).run(service))

        assert raised.value is first, "it began first and failed last"
        assert listener.of(HedgedAttemptFailed)[0].error is second
        assert listener.of(HedgeWon) == []

    async def test_a_timeout_error_of_the_call_does_not_count_as_the_end_of_the_delay(self, clock: FakeClock):
        service = service_with_attempts(clock, (0.5, TimeoutError("its own")))

        with pytest.raises(TimeoutError, match="its own"):
            await clock.drive(hedging(clock).run(service))

        assert len(service.began) == 1

    async def test_a_call_that_fails_before_its_first_await_is_a_failure(self, clock: FakeClock):
        class Call:
            def __call__(self) -> Awaitable[None]:
                raise ConnectionError("no")

        with pytest.raises(ConnectionError, match="no"):
            await hedging(clock).run(Call())


class TestAbandonedAttempts:
    async def test_other_attempts_have_ended_when_the_result_is_returned(self, clock: FakeClock):
        service = service_with_attempts(clock, (60, None), (60, None), (0.5, None))

        assert await clock.drive(hedging(clock, attempts=3).run(service)) == 3
        assert service.running == 0
        assert service.cancelled == [1, 2]

    async def test_an_error_of_a_cancelled_attempt_is_dropped(self, clock: FakeClock):
        begun = 0

        async def call() -> str:
            nonlocal begun
            begun += 1
            if begun == 2:
                return "done"
            try:
                await clock.sleep(60)
            finally:
                raise ConnectionError("could not say goodbye")

        assert await clock.drive(hedging(clock).run(call)) == "done"


class TestCancellation:
    @pytest.mark.parametrize("after", [0.5, 1.5])
    async def test_a_cancellation_stops_every_attempt(
        self, clock: FakeClock, listener: RecordingListener, after: float
    ):
        service = service_with_attempts(clock, (60, None), (60, None))
        caller = asyncio.create_task(hedging(clock, listener=listener).run(service))
        await clock.advance(after)

        caller.cancel()
        await settle()

        assert caller.cancelled()
        assert service.running == 0
        assert listener.of(HedgedAttemptFailed) == []

    async def test_repeated_cancellation_leaves_no_attempt_running(self, clock: FakeClock):
        left = asyncio.Event()
        begun = 0
        running = 0

        async def call() -> None:
            nonlocal begun, running
            begun += 1
            running += 1
            is_first = begun == 1
            try:
                await clock.sleep(60)
            finally:
                # The first computation runs in the task of the caller, with the caller's timeout.
                if not is_first:
                    await left.wait()
                running -= 1

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(1.5)
        for _ in range(2):
            caller.cancel()
            await settle()
        assert not caller.done()

        left.set()
        await settle()

        assert caller.cancelled()
        assert running == 0

    async def test_a_cancellation_is_raised_if_an_attempt_answers_in_the_same_tick(self, clock: FakeClock):
        begun = 0

        async def call() -> str:
            nonlocal begun
            begun += 1
            if begun == 1:
                await clock.sleep(60)
            caller.cancel()
            return "done"

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(1.0)

        assert caller.cancelled()

    async def test_a_cancellation_is_raised_if_the_last_attempt_answers_in_the_same_tick(
        self, clock: FakeClock
    ):
        begun = 0

        async def call() -> str:
            nonlocal begun
            begun += 1
            if begun == 1:
                await clock.sleep(1.2)
                raise ConnectionError
            await clock.sleep(1.0)
            caller.cancel()
            return "done"

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(2.0)

        assert caller.cancelled()

    async def test_an_error_that_the_first_attempt_raises_on_cancellation_is_raised(self, clock: FakeClock):
        begun = 0

        async def call() -> None:
            nonlocal begun
            begun += 1
            is_first = begun == 1
            try:
                await clock.sleep(60)
            except asyncio.CancelledError:
                if is_first:
                    raise ConnectionError("cut off") from None
                raise

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(1.5)
        caller.cancel()
        await settle()

        with pytest.raises(ConnectionError, match="cut off"):
            await caller

    async def test_a_cancellation_after_the_result_is_raised(self, clock: FakeClock):
        left = asyncio.Event()
        begun = 0

        async def call() -> str:
            nonlocal begun
            begun += 1
            if begun == 2:
                return "done"
            try:
                await clock.sleep(60)
            finally:
                await left.wait()
            raise AssertionError("not reached")

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(1.0)
        assert not caller.done(), "the first attempt ends some time after its cancellation"

        caller.cancel()
        await settle()

        assert caller.cancelled()

    async def test_the_cancellation_of_the_first_attempt_is_uncounted(self, clock: FakeClock):
        service = service_with_attempts(clock, (60, None), (0.5, None))

        async def cancellations_after_a_hedge_won() -> int:
            assert await hedging(clock).run(service) == 2
            await asyncio.sleep(0)
            task = asyncio.current_task()
            return -1 if task is None else task.cancelling()

        assert await clock.drive(cancellations_after_a_hedge_won()) == 0
        assert service.cancelled == [1]

    async def test_no_attempt_begins_while_the_first_is_being_cancelled(self, clock: FakeClock):
        begun = 0

        async def call() -> None:
            nonlocal begun
            begun += 1
            try:
                await clock.sleep(60)
            finally:
                await clock.sleep(5)

        caller = asyncio.create_task(hedging(clock).run(call))
        await clock.advance(0.5)
        caller.cancel()
        await clock.advance(10)

        assert caller.cancelled()
        assert begun == 1

    async def test_a_cancellation_ends_the_wait_for_another_attempt_after_a_failure(self, clock: FakeClock):
        service = service_with_attempts(clock, (1.2, ConnectionError()), (60, None))
        caller = asyncio.create_task(hedging(clock).run(service))
        await clock.advance(1.5)
        assert not caller.done()

        caller.cancel()
        await settle()

        assert caller.cancelled()
        assert service.running == 0

    async def test_a_timeout_around_a_hedged_call_raises_its_own_error(self, clock: FakeClock):
        service = service_with_attempts(clock, (60, None), (60, None))

        async def limited() -> int:
            async with clock.timeout(1.5):
                return await hedging(clock).run(service)

        with pytest.raises(TimeoutError):
            await clock.drive(limited())
        assert service.cancelled == [1, 2]

    async def test_a_call_that_cancels_itself_ends_every_attempt(self, clock: FakeClock):
        service = service_with_attempts(clock, (60, None), (0.5, CANCELLED))

        with pytest.raises(asyncio.CancelledError):
            await clock.drive(hedging(clock).run(service))

        assert service.running == 0


class TestQuantile:
    """The delay is a quantile of the latencies of the first attempts."""

    @staticmethod
    def policy(clock: FakeClock, quantile: float = 0.9) -> Hedging:
        return Hedging(HedgingOptions(delay_seconds=10.0, delay_quantile=quantile), clock)

    @staticmethod
    async def delay_of(policy: Hedging, clock: FakeClock) -> float:
        """Return the seconds after which a call that does not answer gets its second attempt."""
        attempts: list[float] = []

        async def call() -> str:
            attempts.append(clock.monotonic())
            if len(attempts) == 1:
                await clock.sleep(1000)
            return "second"

        assert await clock.drive(policy.run(call)) == "second"
        return attempts[1] - attempts[0]

    @staticmethod
    async def answer_after(policy: Hedging, clock: FakeClock, *latencies: float) -> None:
        for seconds in latencies:

            async def call(seconds: float = seconds) -> None:
                await clock.sleep(seconds)

            await clock.drive(policy.run(call))

    async def test_the_fixed_delay_applies_until_there_are_enough_latencies(self, clock: FakeClock):
        policy = self.policy(clock)
        await self.answer_after(policy, clock, *[0.1] * (LATENCIES_NEEDED - 1))
        assert await self.delay_of(policy, clock) == 10.0

    async def test_the_quantile_of_the_latest_latencies_becomes_the_delay(self, clock: FakeClock):
        policy = self.policy(clock)
        await self.answer_after(policy, clock, *(number / 100 for number in range(100)))
        assert await self.delay_of(policy, clock) == pytest.approx(0.9)

    async def test_a_first_attempt_that_was_cancelled_counts_as_slow(self, clock: FakeClock):
        policy = self.policy(clock)
        await self.answer_after(policy, clock, *[0.1] * 100)
        delays = [await self.delay_of(policy, clock) for _ in range(30)]
        assert delays[0] == pytest.approx(0.1)
        assert delays[-1] == pytest.approx(0.1), "overtaken calls do not shorten the delay"

    async def test_a_failure_does_not_count_as_a_latency(self, clock: FakeClock):
        policy = self.policy(clock)
        await self.answer_after(policy, clock, *[0.5] * LATENCIES_NEEDED)

        async def fail() -> None:
            raise ConnectionError

        for _ in range(100):
            with pytest.raises(ConnectionError):
                await policy.run(fail)
        assert await self.delay_of(policy, clock) == 0.5

    @pytest.mark.parametrize("quantile", [0, 1, -0.1, 1.1])
    def test_a_quantile_out_of_range_is_rejected(self, clock: FakeClock, quantile: float):
        with pytest.raises(ValueError, match="delay_quantile must be above 0 and below 1"):
            self.policy(clock, quantile)


async def test_attempts_run_in_the_context_of_their_caller(clock: FakeClock):
    request_id = contextvars.ContextVar("request_id", default="none")
    seen = []

    async def call() -> None:
        seen.append(request_id.get())
        await clock.sleep(60)

    async def request() -> None:
        request_id.set("r-1")
        await hedging(clock).run(call)

    await clock.drive(asyncio.create_task(request()))

    assert seen == ["r-1", "r-1"]


async def test_a_call_that_answers_in_time_leaves_no_timer_and_takes_no_task(clock: FakeClock):
    async def call() -> asyncio.Task[object] | None:
        return asyncio.current_task()

    assert await hedging(clock).run(call) is asyncio.current_task()
    began = clock.monotonic()
    with pytest.raises(RuntimeError, match="no timer"):
        await clock.drive(asyncio.Event().wait())
    assert clock.monotonic() == began


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("delay_seconds", value) for value in (0, -1, math.inf, math.nan)),
        *(("attempts", value) for value in (1, 0, -1, math.nan)),
    ],
)
def test_an_error_names_the_invalid_option(option: str, value: float):
    with pytest.raises(ValueError, match=option):
        HedgingOptions(**{"delay_seconds": 1.0, option: value})


def test_a_call_that_is_closed_after_its_event_loop_raises_nothing():
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # asyncio reports that tasks were pending

    async def begin():
        call = Hedging(HedgingOptions(0.001)).run(asyncio.Event().wait)
        task = asyncio.ensure_future(call)
        while len(asyncio.all_tasks()) < 3:  # this one, the first attempt and the second
            await asyncio.sleep(0.001)
        return call, task

    call, task = loop.run_until_complete(begin())
    loop.close()
    call.close()
    assert not task.done()
