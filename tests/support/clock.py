"""Time and chance under a test's control."""

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_Timer = tuple[float, int, Callable[[], object]]

SETTLE_TURNS = range(30, 300)
"""Turns of the loop that `settle` takes at least, and at most, since some tasks never come to rest."""


async def settle() -> None:
    """Let every task run until it waits for something."""
    loop = asyncio.get_running_loop()
    for turn in range(SETTLE_TURNS.stop):
        if turn >= SETTLE_TURNS.start and not loop._ready:
            break
        await asyncio.sleep(0)


class FakeClock:
    """A `Clock` that stands still until told to move. Only its time of day may move backward."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._at(self._elapsed + seconds, lambda: woken.done() or woken.set_result(None))
        await woken

    def timeout(self, seconds: float | None) -> "_FakeTimeout":
        return _FakeTimeout(self, seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> "_FakeHandle":
        in_context = partial(contextvars.copy_context().run, callback)
        return _FakeHandle(self._timers, self._at(self._elapsed + seconds, in_context))

    async def advance(self, seconds: float) -> None:
        """Move time, waking whoever is due in order and letting all run after each."""
        target = self._elapsed + seconds
        await settle()
        while self._timers and self._timers[0][0] <= target:
            self._fire_next()
            await settle()
        self._elapsed = target
        await settle()

    def jump(self, seconds: float) -> None:
        """Move time when nobody is waiting for it: no task runs meanwhile."""
        self._elapsed += seconds

    def shift_time_of_day(self, seconds: float) -> None:
        """Set the time of day forward, or back where `seconds` is negative, while no time passes."""
        self._start += seconds

    async def drive(self, awaitable: Awaitable[T]) -> T:
        """Await, moving time to the next timer whenever nothing else can go on."""
        task = asyncio.ensure_future(awaitable)
        try:
            await settle()
            while not task.done():
                assert self._timers, "everything waits and no timer is set"
                self._fire_next()
                await settle()
            return await task
        finally:
            task.cancel()

    def _at(self, when: float, callback: Callable[[], object]) -> _Timer:
        timer = (when, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def _fire_next(self) -> None:
        when, _, callback = heapq.heappop(self._timers)
        self._elapsed = max(self._elapsed, when)
        callback()


class _FakeHandle:
    """Takes a timer back."""

    def __init__(self, timers: list[_Timer], timer: _Timer) -> None:
        self._timers = timers
        self._timer = timer

    def cancel(self) -> None:
        if self._timer in self._timers:
            self._timers.remove(self._timer)
            heapq.heapify(self._timers)


class _FakeTimeout:
    """`asyncio.timeout`, but on a fake clock: it expires the real one when fake time has come."""

    def __init__(self, clock: FakeClock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._open = False

    async def __aenter__(self) -> "_FakeTimeout":
        await self._timeout.__aenter__()
        self._open = True
        if self._seconds is not None:
            self._clock._at(self._clock._elapsed + self._seconds, self._expire)
        return self

    async def __aexit__(self, *exc: object) -> bool | None:
        self._open = False
        return await self._timeout.__aexit__(*exc)

    def _expire(self) -> None:
        if self._open:
            self._timeout.reschedule(asyncio.get_running_loop().time())


class FakeRandomizer:
    """A `Randomizer` that draws the numbers it was given, the last one for ever after."""

    def __init__(self, draws: Iterable[float] = (0.5,)) -> None:
        self._draws = list(draws)

    def random(self) -> float:
        return self._draws.pop(0) if len(self._draws) > 1 else self._draws[0]


class CyclingRandomizer:
    """A `Randomizer` that draws the numbers it was given over and over."""

    def __init__(self, draws: Iterable[float]) -> None:
        self._draws = itertools.cycle(draws)

    def random(self) -> float:
        return next(self._draws)
