"""Tools for tests of code that uses the policies: the test controls time and random numbers.

- `FakeClock` is a `Clock` whose time changes only when the test moves it, so no test waits.
- `FakeRandomizer` returns the given numbers. `SystemRandomizer(seed)` is enough for a test that only needs
  the same numbers in each run.
- `RecordingListener` keeps the events that it receives.
- `policies_off` and `quick_retries` change the policies of the whole process, also those that were built with
  a real clock at import time.

`standfast.pytest_plugin` provides these as fixtures. No module of the package imports this one.
"""

import asyncio
import contextvars
import copy
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar
from unittest.mock import patch

from .adaptive_concurrency import AdaptiveConcurrency
from .bulkhead import Bulkhead
from .chaos import Chaos
from .circuit_breaker.policy import CircuitBreaker
from .clock import Clock, Handle
from .events import Event
from .fallback import Fallback
from .hedging import Hedging
from .paced_queue.policy import PacedQueue
from .policy import Call, require_async
from .rate_limiter.policy import RateLimit
from .retry import Retry
from .timeout import Timeout

T = TypeVar("T")
E = TypeVar("E", bound=Event)

_Timer = tuple[float, int, Callable[[], object]]

_SETTLE_TURNS = range(30, 300)
"""The smallest and the largest number of iterations of the event loop in `settle`. Some tasks never end."""


async def settle() -> None:
    """Let every task run until it waits for something, for at most 300 iterations of the event loop.

    Only asyncio's own event loop shows whether a task can run. Any other event loop runs all iterations.
    """
    loop = asyncio.get_running_loop()
    for turn in range(_SETTLE_TURNS.stop):
        if turn >= _SETTLE_TURNS.start and not getattr(loop, "_ready", True):
            break
        await asyncio.sleep(0)  # noqa: TID251 -- no time passes


class FakeClock:
    """A `Clock` whose time changes only when the test moves it. Only the time of day may move backward.

    Args:
        start: The time of day to begin with, as Unix time in seconds.

    Attributes:
        sleeps: The seconds of every `sleep`, in order.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self.sleeps: list[float] = []

    def now(self) -> float:
        """Return the time of day as Unix time."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return the seconds since the clock was created."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return after the clock has moved by `seconds`; for 0 or less, after other tasks have run."""
        self.sleeps.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 -- no time passes
            return
        woken = asyncio.Event()
        self._set_timer(seconds, woken.set)
        await woken.wait()

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Return a context manager like `asyncio.timeout(seconds)` that uses this clock."""
        return _FakeTimeout(self, seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Handle:
        """Call `callback` in the present context after the clock has moved by `seconds`."""
        in_context = partial(contextvars.copy_context().run, callback)
        return _FakeHandle(self._timers, self._set_timer(seconds, in_context))

    async def advance(self, seconds: float) -> None:
        """Move time by `seconds`. At each timer on the way, let tasks run until they wait again.

        Raises:
            ValueError: `seconds` is below 0.
        """
        _require_forward(seconds)
        target = self._elapsed + seconds
        await settle()
        while self._timers and self._timers[0][0] <= target:
            self._fire_next()
            await settle()
        self._elapsed = target
        await settle()

    def jump(self, seconds: float) -> None:
        """Move time by `seconds` and let no task run.

        Raises:
            ValueError: `seconds` is below 0.
        """
        _require_forward(seconds)
        self._elapsed += seconds

    def shift_time_of_day(self, seconds: float) -> None:
        """Set the time of day forward, or back if `seconds` is negative. The monotonic time stays."""
        self._start += seconds

    async def drive(self, awaitable: Awaitable[T]) -> T:
        """Return the result of `awaitable`. Whenever all tasks wait, move time to the next timer.

        Raises:
            RuntimeError: All tasks wait, and for no timer of this clock.
            BaseException: The error of `awaitable`.
        """
        task = asyncio.ensure_future(awaitable)
        try:
            await settle()
            while not task.done():
                if not self._timers:
                    raise RuntimeError("every task waits and no timer of this clock is set")
                self._fire_next()
                await settle()
            return await task
        finally:
            task.cancel()

    def _set_timer(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        timer = (self._elapsed + seconds, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def _fire_next(self) -> None:
        when, _, callback = heapq.heappop(self._timers)
        self._elapsed = max(self._elapsed, when)
        callback()


def _require_forward(seconds: float) -> None:
    if not seconds >= 0:
        raise ValueError(f"seconds must be at least 0, not {seconds}; `shift_time_of_day` sets a clock back")


class _FakeHandle:
    """A timer that can be cancelled."""

    def __init__(self, timers: list[_Timer], timer: _Timer) -> None:
        self._timers = timers
        self._timer = timer

    def cancel(self) -> None:
        if self._timer in self._timers:
            self._timers.remove(self._timer)
            heapq.heapify(self._timers)


class _FakeTimeout:
    """An `asyncio.timeout` on a fake clock: a timer of the clock makes the real timeout expire."""

    def __init__(self, clock: FakeClock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._timer: Handle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        if self._seconds is not None:
            self._timer = self._clock.call_later(self._seconds, self._expire)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _expire(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())


class FakeRandomizer:
    """A `Randomizer` that returns the given numbers.

    Args:
        draws: The numbers, from 0 to below 1; at least one. The last number repeats.
    """

    def __init__(self, draws: Iterable[float] = (0.5,)) -> None:
        self._draws = list(draws)
        if not self._draws:
            raise ValueError("draws must be at least one number")

    def random(self) -> float:
        """Return the next number."""
        return self._draws.pop(0) if len(self._draws) > 1 else self._draws[0]


class RecordingListener:
    """A listener that keeps the events that it receives, in order.

    Args:
        without: Kinds of events that are not kept.

    Attributes:
        events: The events.
    """

    def __init__(self, *, without: tuple[type[Event], ...] = ()) -> None:
        self._without = without
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep `event`."""
        if not isinstance(event, self._without):
            self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


_POLICIES = (
    AdaptiveConcurrency,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Fallback,
    Hedging,
    PacedQueue,
    RateLimit,
    Retry,
    Timeout,
)


@contextmanager
def policies_off() -> Iterator[None]:
    """Let every `run` of every policy only run its call, until the context ends.

    No call is retried, rejected, limited, counted or replaced by a fallback. This applies to the whole
    process, also to pipelines and decorated functions. Calls in progress keep their policies.
    """
    with ExitStack() as stack:
        for kind in _POLICIES:
            stack.enter_context(patch.object(kind, "run", _run_without_policy))
        yield


async def _run_without_policy(_policy: object, call: Call[T], **_overrides: object) -> T:
    require_async(call)
    return await call()


@contextmanager
def quick_retries(attempts: int = 1) -> Iterator[None]:
    """Let every `Retry` make at most `attempts` attempts without a wait, until the context ends.

    This applies to the whole process. The events still contain the time that the retry would have waited. All
    other policies do not change: for a rate limiter or a queue, use a `FakeClock`.

    Args:
        attempts: The most attempts of a call, including the first; at least 1.
    """
    if not attempts >= 1:
        raise ValueError(f"attempts must be at least 1, not {attempts}")
    run = Retry.run

    async def run_quickly(policy: Retry, call: Call[T]) -> T:
        options = vars(policy)["_options"]
        quick = copy.copy(policy)
        vars(quick).update(
            _options=replace(options, attempts=min(attempts, options.attempts)),
            _clock=_ClockWithoutSleep(vars(policy)["_clock"]),
        )
        return await run(quick, call)

    with patch.object(Retry, "run", run_quickly):
        yield


class _ClockWithoutSleep:
    """A clock on which `sleep` takes no time."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now
        self.monotonic = clock.monotonic
        self.timeout = clock.timeout
        self.call_later = clock.call_later
        self._sleep = clock.sleep

    async def sleep(self, _seconds: float) -> None:
        await self._sleep(0)
