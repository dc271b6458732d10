"""Calls whose behaviour a test controls, and callers that record the outcomes."""

import asyncio
from collections.abc import Callable

from src.resilience.policy import Call, Policy
from tests.support.clock import FakeClock

CANCELLED = "cancelled"
"""The outcome of a cancelled call."""


def _end(ending: object) -> object:
    if ending is CANCELLED:
        raise asyncio.CancelledError
    if isinstance(ending, Exception):
        raise ending
    return ending


class ScriptedCall:
    """A call whose attempts take given seconds and end with an answer, an error or `CANCELLED`.

    Args:
        clock: The clock for the durations.
        attempts: The duration in seconds and the ending of each attempt.
        leaving: The duration of a cancelled attempt after the cancellation, in seconds.

    Attributes:
        began: The start of each attempt.
        running: The number of running attempts.
        cancelled: The numbers, from 1, of cancelled attempts.
    """

    def __init__(self, clock: FakeClock, *attempts: tuple[float, object], leaving: float = 0.0) -> None:
        self._clock = clock
        self._attempts = attempts
        self._leaving = leaving
        self.began: list[float] = []
        self.running = 0
        self.cancelled: list[int] = []

    async def __call__(self) -> object:
        seconds, ending = self._attempts[len(self.began)]
        self.began.append(self._clock.monotonic())
        number = len(self.began)
        self.running += 1
        try:
            await self._clock.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            if self._leaving:
                await self._clock.sleep(self._leaving)
            raise
        finally:
            self.running -= 1
        return _end(ending)


class OpenCall:
    """A call that continues until the test ends it with an answer, an error or `CANCELLED`.

    Args:
        on_begin: Called at the start of the call.

    Attributes:
        is_running: Whether the call has begun and not ended.
    """

    def __init__(self, on_begin: Callable[[], object] = lambda: None) -> None:
        self.is_running = False
        self._on_begin = on_begin
        self._ending = asyncio.get_running_loop().create_future()

    def end(self, ending: object = "done") -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    async def __call__(self) -> object:
        self.is_running = True
        self._on_begin()
        try:
            return _end(await self._ending)
        finally:
            self.is_running = False


class Caller:
    """Runs a call through a policy, in a new task.

    Attributes:
        call: The call.
        task: The task.
        outcome: None while the call runs; then the time of its end, and an answer, an error or `CANCELLED`.
    """

    def __init__(self, policy: Policy, call: Call[object], clock: FakeClock) -> None:
        self.call = call
        self.outcome: tuple[float, object] | None = None
        self._clock = clock
        self.task = asyncio.create_task(policy.run(call))
        self.task.add_done_callback(self._record_outcome)

    def _record_outcome(self, task: asyncio.Task[object]) -> None:
        ending = CANCELLED if task.cancelled() else task.exception() or task.result()
        self.outcome = self._clock.monotonic(), ending
