"""Hedging: begin a slow call a second time and take whichever answers first.

Only for calls that are idempotent, since several attempts may reach the service, and a cancelled one may
have done its work. It cuts the tail of the latency, where an attempt is slow by bad luck and another would
not be; against a service that is slow altogether it is only more load. With the delay at the 95th percentile
of the call's latency that load is about 5 % more calls. (Dean and Barroso, "The Tail at Scale", CACM 56(2),
2013.)

A failure begins no attempt: hedging is against slowness, and for failures there is the retry, with its
backoff and its budget. In a pipeline hedging belongs inside the retry and around the timeout, so that each
attempt has a time limit of its own.

The first attempt runs in its caller's own task, so that a call which answers in time pays for a timer and
for no task. An answer of another attempt interrupts it the way `asyncio.timeout` does.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from .clock import Clock
from .events import Hedged, HedgedAttemptFailed, HedgeWon, Listener, ignore, notify
from .policy import Call, require_async

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HedgingOptions:
    """When to begin another attempt, and how often.

    Attributes:
        delay_seconds: How long to wait for an answer before each further attempt; finite, above 0.
        attempts: How many attempts in all, the first included; at least 2.
    """

    delay_seconds: float
    attempts: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.delay_seconds < math.inf:
            raise ValueError(f"delay_seconds must be finite and above 0, not {self.delay_seconds}")
        if not self.attempts >= 2:
            raise ValueError(f"attempts must be at least 2, not {self.attempts}")


class Hedging:
    """The policy. Attempts are stopped by cancelling them, so the call must let a cancellation through.

    When `run` returns or raises, its caller's cancellation included, no attempt is running any more. When its
    coroutine is closed, which cannot wait for anything, every other attempt has been cancelled.

    Args:
        options: When to begin another attempt, and how often.
        clock: Measures the delay.
        name: What events call this policy.
        listener: Told of every attempt but the first, of every failure that another attempt may make good,
            and of every answer that came from another attempt than the first.
    """

    def __init__(
        self, options: HedgingOptions, clock: Clock, *, name: str = "hedging", listener: Listener = ignore
    ) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._listener = listener

    async def run(self, call: Call[T]) -> T:
        """Run `call` up to so many times at once, and return the first answer.

        Once cancelled from outside, it ends as the first attempt does.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the attempt that failed last, as it came, when none is under way any
                more. Errors of attempts that were cancelled since another had answered are dropped.
        """
        require_async(call)
        race = _Race(call, self._options, self._clock, self.name, self._listener)
        may_wait = True
        try:
            try:
                answer = await call()
            except (Exception, asyncio.CancelledError) as error:
                if race.is_decided_by_first(error):
                    raise
            else:
                if race.is_decided_by_first():
                    return answer
            return await race.answer_of_another()
        except GeneratorExit:
            may_wait = False
            raise
        finally:
            race.close()
            if race.others:
                race.cancel_others()
                if may_wait:
                    await race.end_of_others()


class _Race(Generic[T]):
    """The attempts at one call: the first, which its caller runs, and those that the timer begins."""

    __slots__ = (
        "_call",
        "_caller",
        "_cancelling",
        "_clock",
        "_decided_by",
        "_decision",
        "_first_is_running",
        "_is_over",
        "_listener",
        "_name",
        "_options",
        "_timer",
        "_under_way",
        "others",
    )

    def __init__(
        self, call: Call[T], options: HedgingOptions, clock: Clock, name: str, listener: Listener
    ) -> None:
        caller = asyncio.current_task()
        if caller is None:
            raise RuntimeError("hedging needs a task to run in")
        self._call = call
        self._options = options
        self._clock = clock
        self._name = name
        self._listener = listener
        self._caller = caller
        self._cancelling = caller.cancelling()
        self._first_is_running = True
        self._under_way = 1
        self.others: dict[asyncio.Task[T], int] = {}
        self._is_over = False
        self._decided_by: asyncio.Task[T] | None = None
        self._decision: asyncio.Future[asyncio.Task[T]] | None = None
        self._timer = clock.call_later(options.delay_seconds, self._begin_another)

    def is_decided_by_first(self, error: BaseException | None = None) -> bool:
        """Take note that the first attempt has ended, and return whether that is the end of all."""
        self._first_is_running = False
        self._under_way -= 1
        if self._decided_by is not None:  # it was interrupted, and the cancellation is ours to take back
            return self._caller.uncancel() > self._cancelling
        if not isinstance(error, Exception) or not self._under_way or self._is_cancelled_from_outside():
            return True
        notify(self._listener, HedgedAttemptFailed(policy=self._name, attempt=1, error=error))
        return False

    async def answer_of_another(self) -> T:
        """Return the first answer, or raise the last error, of the attempts beside the first."""
        if self._decided_by is None:
            self._decision = asyncio.get_running_loop().create_future()
            decided_by = await self._decision
        else:
            decided_by = self._decided_by
        answer = decided_by.result()
        notify(self._listener, HedgeWon(policy=self._name, attempt=self.others[decided_by]))
        return answer

    def close(self) -> None:
        """Begin no more attempts, and take no more note of how they end."""
        self._is_over = True
        self._timer.cancel()

    def cancel_others(self) -> None:
        """Cancel the attempts beside the first."""
        for other in self.others:
            other.cancel()

    async def end_of_others(self) -> None:
        """Return when the last of them has ended, and put off a cancellation until then."""
        cancellation: asyncio.CancelledError | None = None
        while running := [other for other in self.others if not other.done()]:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as error:
                cancellation = error
        if cancellation is not None:
            raise cancellation

    def _begin_another(self) -> None:
        if self._is_cancelled_from_outside():
            return
        number = len(self.others) + 2
        notify(self._listener, Hedged(policy=self._name, attempt=number))
        self._under_way += 1
        other = asyncio.create_task(_awaited(self._call))
        self.others[other] = number
        other.add_done_callback(self._another_ended)
        if number < self._options.attempts:
            self._timer = self._clock.call_later(self._options.delay_seconds, self._begin_another)

    def _another_ended(self, other: asyncio.Task[T]) -> None:
        error = None if other.cancelled() else other.exception()  # asked for, or asyncio complains
        if self._is_over:
            return
        self._under_way -= 1
        if isinstance(error, Exception) and self._under_way:
            failed = HedgedAttemptFailed(policy=self._name, attempt=self.others[other], error=error)
            notify(self._listener, failed)
            return
        self.close()
        if self._first_is_running:
            self._decided_by = other
            self._caller.cancel()
        elif self._decision is not None and not self._decision.done():  # done: its caller was cancelled
            self._decision.set_result(other)

    def _is_cancelled_from_outside(self) -> bool:
        return self._caller.cancelling() > self._cancelling


async def _awaited(call: Call[T]) -> T:
    return await call()
