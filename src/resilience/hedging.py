"""Hedging: begin a slow call a second time and take the first answer.

Hedging is only for idempotent calls, since several attempts may reach the service, and a cancelled attempt
may have done its work. It shortens the tail of the latency, where one attempt is slow by chance and another
would not be. Where the whole service is slow, it only adds load. With the delay at the 95th percentile of the
call's latency, that load is about 5 % more calls. (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013.)

A failure begins no attempt: hedging is against slowness. Against failures there is the retry, with its
backoff and its budget. In a pipeline, hedging belongs inside the retry and around the timeout, so that each
attempt has its own time limit.

The first attempt runs in its caller's task, so a call that answers in time costs a timer and no task. The
answer of another attempt interrupts the first one in the way of `asyncio.timeout`.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Generic, Self, TypeAlias, TypeVar

from .building_blocks.latencies import RecentLatencies
from .building_blocks.outcomes import report_outcomes
from .clock import SYSTEM_CLOCK, Clock
from .errors import FailedResultError
from .events import Hedged, HedgedAttemptFailed, HedgeWon, Listener, ignore, notify
from .policy import BasePolicy, Call, ResultJudge, override, require_async

T = TypeVar("T")

LATENCIES_KEPT = 100
"""First attempts whose latencies a quantile is taken of."""

LATENCIES_NEEDED = 20
"""First attempts that must have been answered or overtaken before a quantile is used."""

_Attempt: TypeAlias = tuple[T, FailedResultError | None]
"""The result of an attempt, and the failure that it counts as."""


@dataclass(frozen=True, slots=True)
class HedgingOptions:
    """The delay and the number of the attempts.

    Attributes:
        delay_seconds: The wait for an answer before each further attempt; finite, above 0.
        attempts: The number of all attempts, the first included; at least 2.
        is_failure_result: Returns whether a result counts as a failure; None: no result does. Such a result
            is the answer only if no other attempt is running.
        delay_quantile: In (0, 1): the wait is this quantile of the latencies of the latest `LATENCIES_KEPT`
            first attempts that were answered or overtaken; `delay_seconds` applies to the first
            `LATENCIES_NEEDED` calls. None: `delay_seconds` always applies.
    """

    delay_seconds: float
    attempts: int = 2
    is_failure_result: ResultJudge | None = None
    delay_quantile: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.delay_seconds < math.inf:
            raise ValueError(f"delay_seconds must be finite and above 0, not {self.delay_seconds}")
        if self.delay_quantile is not None and not 0 < self.delay_quantile < 1:
            raise ValueError(f"delay_quantile must be above 0 and below 1, not {self.delay_quantile}")
        if not self.attempts >= 2:
            raise ValueError(f"attempts must be at least 2, not {self.attempts}")


class Hedging(BasePolicy):
    """A policy that begins another attempt if the first one is slow, and returns the first answer.

    It stops attempts by cancelling them, so the call must not suppress a cancellation. All attempts have
    ended when `run` returns or raises, also after a cancellation of its caller. If its coroutine is closed,
    it cannot wait for the attempts, and only cancels them.

    Args:
        options: The delay and the number of the attempts.
        clock: Measures the delay.
        name: The policy's name in events.
        listener: Receives `Hedged` for each attempt but the first, `HedgedAttemptFailed` for each failure
            while another attempt is running, and `HedgeWon` if the answer is not that of the first
            attempt.
    """

    def __init__(
        self,
        options: HedgingOptions,
        clock: Clock = SYSTEM_CLOCK,
        *,
        name: str = "hedging",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._listener = listener
        self._latencies = RecentLatencies(LATENCIES_KEPT)
        report_outcomes(self, clock, listener, is_failure_result=options.is_failure_result)

    def with_options(self, *, delay_seconds: float | None = None, attempts: int | None = None) -> Self:
        """Return this policy with another delay or number of attempts.

        Raises:
            ValueError: A value is out of its range.
        """
        return self._derive(_options=override(self._options, delay_seconds=delay_seconds, attempts=attempts))

    async def run(self, call: Call[T]) -> T:
        """Run `call`, if necessary several times concurrently, and return the first answer.

        After a cancellation from outside, `run` ends as the first attempt does.

        Returns:
            The first result that is no failure. If every attempt failed, the result of the attempt that
            failed last, if that attempt returned one.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the attempt that failed last, unchanged, when no attempt is running
                any more. Errors of attempts that were cancelled after the answer of another are dropped.
        """
        require_async(call)
        options = self._options
        is_measured, has_judge = options.delay_quantile is not None, options.is_failure_result is not None
        delay_seconds = self._measured_delay() if is_measured else options.delay_seconds
        race = _Race(call, options, delay_seconds, self._clock, self.name, self._listener)
        may_wait = True
        began = self._clock.monotonic() if is_measured else 0.0
        try:
            try:
                answer = await call()
                if is_measured:
                    self._latencies.add(self._clock.monotonic() - began)
                failure = race.failure_in(answer) if has_judge else None
            except (Exception, asyncio.CancelledError) as error:
                if is_measured and race.is_decided_by_another:  # it was slower than that, and counts as slow
                    self._latencies.add(self._clock.monotonic() - began)
                if race.is_decided_by_first(error):
                    raise
            else:
                if race.is_decided_by_first(failure):
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

    def _measured_delay(self) -> float:
        """Return the wait before each further attempt of a call that begins now, by recent latencies."""
        quantile = self._options.delay_quantile
        if quantile is None or len(self._latencies) < LATENCIES_NEEDED:
            return self._options.delay_seconds
        return self._latencies.quantile(quantile)


class _Race(Generic[T]):
    """The attempts of one call: the first, which its caller runs, and those that the timer begins."""

    __slots__ = (
        "_call",
        "_caller",
        "_cancelling",
        "_clock",
        "_decided_by",
        "_decision",
        "_delay_seconds",
        "_first_is_running",
        "_is_over",
        "_listener",
        "_name",
        "_options",
        "_timer",
        "_under_way",
        "others",
    )

    def __init__(  # noqa: PLR0917 -- keywords would take a twentieth of the policy's time
        self,
        call: Call[T],
        options: HedgingOptions,
        delay_seconds: float,
        clock: Clock,
        name: str,
        listener: Listener,
    ) -> None:
        caller = asyncio.current_task()
        if caller is None:
            raise RuntimeError("hedging needs a task to run in")
        self._call = call
        self._options = options
        self._delay_seconds = delay_seconds
        self._clock = clock
        self._name = name
        self._listener = listener
        self._caller = caller
        self._cancelling = caller.cancelling()
        self._first_is_running = True
        self._under_way = 1
        self.others: dict[asyncio.Task[_Attempt[T]], int] = {}
        self._is_over = False
        self._decided_by: asyncio.Task[_Attempt[T]] | None = None
        self._decision: asyncio.Future[asyncio.Task[_Attempt[T]]] | None = None
        self._timer = clock.call_later(delay_seconds, self._begin_another)

    def failure_in(self, result: T) -> FailedResultError | None:
        """Return the failure that `result` counts as, if it does."""
        judge = self._options.is_failure_result
        return None if judge is None or not judge(result) else FailedResultError(result)

    @property
    def is_decided_by_another(self) -> bool:
        """Whether an attempt beside the first has answered and interrupted the first one."""
        return self._decided_by is not None

    def is_decided_by_first(self, error: BaseException | None) -> bool:
        """Record that the first attempt has ended, and return whether its outcome is that of the call."""
        self._first_is_running = False
        self._under_way -= 1
        if self._decided_by is not None:  # another attempt interrupted it by a cancellation, withdrawn here
            return self._caller.uncancel() > self._cancelling
        if not isinstance(error, Exception) or not self._under_way or self._is_cancelled_from_outside():
            return True
        notify(self._listener, HedgedAttemptFailed(policy=self._name, attempt=1, error=error))
        return False

    async def answer_of_another(self) -> T:
        """Return the first answer, or the last failure, of the attempts beside the first."""
        if self._decided_by is None:
            self._decision = asyncio.get_running_loop().create_future()
            decided_by = await self._decision
        else:
            decided_by = self._decided_by
        answer, failure = decided_by.result()
        if failure is None:
            notify(self._listener, HedgeWon(policy=self._name, attempt=self.others[decided_by]))
        return answer

    def close(self) -> None:
        """Begin no more attempts, and ignore how the others end."""
        self._is_over = True
        self._timer.cancel()

    def cancel_others(self) -> None:
        """Cancel the attempts beside the first, unless their event loop has ended and they with it."""
        for other in self.others:
            if not other.get_loop().is_closed():
                other.cancel()

    async def end_of_others(self) -> None:
        """Return when all of them have ended; a cancellation is raised only then."""
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
        other = asyncio.create_task(self._attempt())
        self.others[other] = number
        other.add_done_callback(self._another_ended)
        if number < self._options.attempts:
            self._timer = self._clock.call_later(self._delay_seconds, self._begin_another)

    async def _attempt(self) -> "_Attempt[T]":
        result = await self._call()
        return result, self.failure_in(result)

    def _another_ended(self, other: "asyncio.Task[_Attempt[T]]") -> None:
        error = None if other.cancelled() else other.exception()  # read it, or asyncio logs it
        if self._is_over:
            return
        if error is None and not other.cancelled():
            _, error = other.result()
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
