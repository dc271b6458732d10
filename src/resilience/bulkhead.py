"""Bulkhead: so many calls at a time and no more, so that one slow dependency can't use up everything.

Calls beyond the permits wait in a line, first come first served; the line and the wait are bounded too.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

from .clock import Clock
from .errors import BulkheadFullError
from .events import Listener, Rejected, Waited, ignore, notify
from .permits import Permits
from .policy import Call, require_async

T = TypeVar("T")

_FIRST_GUESS_SECONDS = 1.0
"""How long a permit is taken to be held while no call has shown it."""

_MEAN_WEIGHT = 0.1
"""Weight of the latest call in the moving mean of how long a permit is held."""


@dataclass(frozen=True, slots=True)
class BulkheadOptions:
    """How much room there is.

    Attributes:
        permits: Calls under way at once, at least 1.
        max_waiting: Calls that may wait for a permit, at least 0.
        max_wait_seconds: The longest one may wait; finite, above 0.
    """

    permits: int = 10
    max_waiting: int = 0
    max_wait_seconds: float = 1.0

    def __post_init__(self) -> None:
        _require_permits(self.permits)
        if not self.max_waiting >= 0:
            raise ValueError(f"max_waiting must be at least 0, not {self.max_waiting}")
        if not 0 < self.max_wait_seconds < math.inf:
            raise ValueError(f"max_wait_seconds must be finite and above 0, not {self.max_wait_seconds}")


class Bulkhead:
    """The policy.

    Args:
        options: How much room there is.
        clock: Measures how long permits are held, and limits waits.
        name: What events and errors call this policy.
        listener: Receives an event for each call that was rejected or had to wait.
    """

    def __init__(
        self, options: BulkheadOptions, clock: Clock, *, name: str = "bulkhead", listener: Listener = ignore
    ) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._listener = listener
        self._permits = Permits(options.permits)
        self._mean_hold_seconds = _FIRST_GUESS_SECONDS

    @property
    def permits(self) -> int:
        """Calls that may be under way at once."""
        return self._permits.total

    @property
    def in_use(self) -> int:
        """Calls under way. Above `permits` for a while after those were reduced."""
        return self._permits.in_use

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return self._permits.waiting

    def resize(self, permits: int) -> None:
        """Change the number of permits. More let waiting calls in at once; fewer stop no call under way.

        Raises:
            ValueError: `permits` is below 1.
        """
        _require_permits(permits)
        self._permits.resize(permits)

    async def run(self, call: Call[T]) -> T:
        """Run `call` once there is a permit for it.

        Raises:
            BulkheadFullError: The line is full, or the longest wait is over. Its `retry_after` is the mean
                time after which a permit comes free, going by the calls of late.
            TypeError: `call` is a plain function; it is not run.
            RuntimeError: Callers of another event loop wait for a permit.
        """
        require_async(call)
        arrived = self._clock.monotonic()
        has_waited = not self._permits.try_take()
        if has_waited:
            await self._wait_for_permit()
        began = self._clock.monotonic()
        try:
            if has_waited:
                notify(self._listener, Waited(policy=self.name, seconds=began - arrived))
            return await call()
        finally:
            held_seconds = self._clock.monotonic() - began
            self._mean_hold_seconds += _MEAN_WEIGHT * (held_seconds - self._mean_hold_seconds)
            self._permits.give_back()

    async def _wait_for_permit(self) -> None:
        if self._permits.waiting >= self._options.max_waiting:
            raise self._rejection("every permit is in use and the line is full")
        try:
            async with self._clock.timeout(self._options.max_wait_seconds):
                await self._permits.wait()
        except TimeoutError:
            raise self._rejection("the longest wait is over") from None

    def _rejection(self, reason: str) -> BulkheadFullError:
        retry_after = self._mean_hold_seconds / self._permits.total
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return BulkheadFullError(self.name, reason, retry_after)


def _require_permits(permits: int) -> None:
    if not permits >= 1:
        raise ValueError(f"permits must be at least 1, not {permits}")
