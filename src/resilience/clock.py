"""The clock and the random numbers that patterns use.

Every pattern takes a `Clock`, and a `Randomizer` if it needs random numbers. Tests pass their own, so that no
test waits. Only this module uses the clock and the random numbers of the system.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol


class Handle(Protocol):
    """A scheduled callback."""

    def cancel(self) -> object:
        """Cancel the callback. If the callback has already run, this does nothing."""
        ...


class Clock(Protocol):
    """The time functions of a pattern. All times are in seconds."""

    def now(self) -> float:
        """Return the Unix time. It may jump: do not measure durations with it."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, with an arbitrary origin, for measuring durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`. With 0, other tasks run before this returns."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Return a context that raises `TimeoutError` if its body takes longer than `seconds`.

        With None there is no limit. As with `asyncio.timeout`, a cancellation from outside stays a
        cancellation.
        """
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Handle:
        """Call `callback` after `seconds`, on the running event loop and in the current context."""
        ...


class SystemClock:
    """The clock of the machine."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return `asyncio.timeout(seconds)`."""
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Schedule `callback` on the running event loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)


SYSTEM_CLOCK: Final = SystemClock()
"""The default clock of policies and stores."""


class BlockingClock(SystemClock):
    """The clock of the machine for `SyncPolicy.run_sync`: `sleep` blocks the thread.

    Do not use it on an event loop, because `sleep` would block the loop.
    """

    async def sleep(self, seconds: float) -> None:
        """Block the thread for `seconds`."""
        time.sleep(seconds)  # noqa: ASYNC251 -- no event loop runs


class Randomizer(Protocol):
    """The random numbers for jitter, early refreshes and injected faults."""

    def random(self) -> float:
        """Return a random number, uniformly distributed in [0, 1)."""
        ...


class SystemRandomizer:
    """Pseudo-random numbers. They suffice for jitter, but not for anything that must be secret.

    Args:
        seed: The seed, which makes the numbers repeatable. None: a random seed.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def random(self) -> float:
        """Return a random number, uniformly distributed in [0, 1)."""
        return self._random.random()


SYSTEM_RANDOMIZER: Final = SystemRandomizer()
"""The default randomizer of policies."""
