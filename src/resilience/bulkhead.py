"""Bulkhead: a limit on the concurrent calls, so that one slow dependency cannot use up all resources.

Further calls wait in a queue, first come first served. The length of the queue and the wait are limited too.
"""

import math
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from .building_blocks.outcomes import report_outcomes
from .building_blocks.permit import BlockPolicy
from .building_blocks.permits import Permits
from .clock import SYSTEM_CLOCK, Clock
from .errors import BulkheadFullError
from .events import Listener, Rejected, Waited, ignore, notify
from .policy import Call, override, require_async

T = TypeVar("T")

_FIRST_GUESS_SECONDS = 1.0
"""The mean time for which a permit is held, until calls have been measured."""

_MEAN_WEIGHT = 0.1
"""The weight of the latest call in that mean, which is a moving one."""


def _require_permits(permits: int) -> None:
    if not permits >= 1:
        raise ValueError(f"permits must be at least 1, not {permits}")


@dataclass(frozen=True, slots=True)
class BulkheadOptions:
    """The limits of a bulkhead.

    Attributes:
        permits: The number of concurrent calls, at least 1.
        max_waiting: Calls that may wait for a permit, at least 0.
        max_wait_seconds: The longest time that a call may wait for a permit; finite, above 0.
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


_DEFAULT_OPTIONS: Final = BulkheadOptions()


class Bulkhead(BlockPolicy):
    """A policy that limits the number of concurrent calls.

    Args:
        options: The limits.
        clock: Measures how long permits are held, and limits waits.
        name: The policy's name in events and errors.
        listener: Receives an event for each call that was rejected or had to wait.
    """

    def __init__(
        self,
        options: BulkheadOptions = _DEFAULT_OPTIONS,
        clock: Clock = SYSTEM_CLOCK,
        *,
        name: str = "bulkhead",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._listener = listener
        self._permits = Permits(options.permits)
        self._hold_times = _HoldTimes()
        report_outcomes(self, clock, listener)

    @property
    def permits(self) -> int:
        """The limit of concurrent calls."""
        return self._permits.total

    @property
    def in_use(self) -> int:
        """The running calls. They may be more than `permits` for a while after `permits` was reduced."""
        return self._permits.in_use

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._permits.waiting

    def resize(self, permits: int) -> None:
        """Change the number of permits.

        New permits go to waiting calls at once. Fewer permits stop no running call.

        Raises:
            ValueError: `permits` is below 1.
        """
        _require_permits(permits)
        self._permits.resize(permits)

    def with_options(self, *, max_waiting: int | None = None, max_wait_seconds: float | None = None) -> Self:
        """Return this bulkhead, with the same permits and the same queue, with other limits on waiting.

        Raises:
            ValueError: A value is out of its range.
        """
        options = override(self._options, max_waiting=max_waiting, max_wait_seconds=max_wait_seconds)
        return self._derive(_options=options)

    async def run(self, call: Call[T]) -> T:
        """Run `call` as soon as there is a permit for it.

        Raises:
            BulkheadFullError: The queue is full, or the longest wait is over. Its `retry_after` is the mean
                time after which a permit becomes free, estimated from recent calls.
            TypeError: `call` is a plain function; it is not run.
            RuntimeError: A call of another event loop holds the last permit or waits for one.
            BaseException: The error of the call.
        """
        require_async(call)
        arrived = began = self._clock.monotonic()
        has_waited = not self._permits.try_take()
        if has_waited:
            await self._wait_for_permit()
            began = self._clock.monotonic()
        try:
            if has_waited:
                notify(self._listener, Waited(policy=self.name, seconds=began - arrived))
            return await call()
        finally:
            hold_times = self._hold_times  # not by a method, which would cost a tenth of the policy's time
            hold_times.mean += _MEAN_WEIGHT * (self._clock.monotonic() - began - hold_times.mean)
            self._permits.give_back()

    async def _wait_for_permit(self) -> None:
        if self._permits.waiting >= self._options.max_waiting:
            raise self._rejection("every permit is in use and the queue is full")
        try:
            async with self._clock.timeout(self._options.max_wait_seconds):
                await self._permits.wait()
        except TimeoutError:
            raise self._rejection("the longest wait is over") from None

    def _rejection(self, reason: str) -> BulkheadFullError:
        retry_after = self._hold_times.mean / self._permits.total
        notify(self._listener, Rejected(policy=self.name, retry_after=retry_after))
        return BulkheadFullError(self.name, reason, retry_after)


class _HoldTimes:
    """The moving mean of the times for which permits were held, in seconds. A bulkhead's copies share it."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean = _FIRST_GUESS_SECONDS
