"""Time and chance, handed in.

Every pattern takes a `Clock` and, where it draws lots, a `Randomizer`. A test hands in its own and no test
has to wait; this module is the only one that touches the system's clock and its random numbers.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol


class Handle(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> object:
        """Never call it. Once it was called, this does nothing."""
        ...


class Clock(Protocol):
    """What a pattern may ask of time. Every figure is in seconds."""

    def now(self) -> float:
        """Return the time of day as Unix time. It may jump; never measure a duration with it."""
        ...

    def monotonic(self) -> float:
        """Return a reading that only ever grows, of no particular origin, for measuring durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, which may be 0: then others run first."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Return a context that raises `TimeoutError` when its body takes longer than `seconds`.

        With None it never does. As with `asyncio.timeout`, a cancellation from outside stays a
        cancellation.
        """
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Handle:
        """Call `callback` in `seconds`, on the running event loop and in the present context."""
        ...


class SystemClock:
    """The machine's own time."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return `asyncio.timeout(seconds)`."""
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Leave it to the running event loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)


SYSTEM_CLOCK: Final = SystemClock()
"""What the policies and stores use unless they get another clock."""


class BlockingClock(SystemClock):
    """The machine's own time for `SyncPolicy.run_sync`: `sleep` blocks the thread.

    Not for use on an event loop, which would stand still meanwhile.
    """

    async def sleep(self, seconds: float) -> None:
        """Block the thread for `seconds`."""
        time.sleep(seconds)  # noqa: ASYNC251 -- no event loop runs


class Randomizer(Protocol):
    """Where jitter, early refreshes and injected faults draw their lots."""

    def random(self) -> float:
        """Return a number drawn evenly from [0, 1)."""
        ...


class SystemRandomizer:
    """Pseudo-random numbers, good enough for jitter and for nothing that must be secret.

    Args:
        seed: Makes the draws repeatable; None starts anywhere.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def random(self) -> float:
        """Return a number drawn evenly from [0, 1)."""
        return self._random.random()


SYSTEM_RANDOMIZER: Final = SystemRandomizer()
"""What the policies use unless they get another randomizer."""
