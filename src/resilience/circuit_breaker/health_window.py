"""How the latest calls went: over the last so many calls, or over the last so many seconds.

Both windows forget what is too old when something new arrives, and hold a fixed amount of memory. They are
resilience4j's two sliding windows; the time window is cut into ten buckets as in Polly's rolling health
metrics, so its edge is exact to a tenth of its length.
"""

import math
from collections import deque
from typing import NamedTuple, Protocol

from ..clock import Clock

BUCKETS = 10
"""Parts a time window is cut into. A part leaves as a whole."""


_NOTHING = (False, False)
"""What a window that is not full loses with each call: no failed call, no slow call."""


class Health(NamedTuple):
    """How many calls a window holds, and how many of these failed and were slow; one call can be both."""

    calls: int
    failures: int
    slow: int


class HealthWindow(Protocol):
    """A record of the latest calls."""

    def record(self, *, failed: bool, slow: bool) -> None:
        """Add the outcome of one call."""
        ...

    def health(self) -> Health:
        """Return what the window holds now."""
        ...


class CountWindow:
    """The last `size` calls, at least 1."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: deque[tuple[bool, bool]] = deque(maxlen=size)
        self._failures = 0
        self._slow = 0

    def record(self, *, failed: bool, slow: bool) -> None:
        """Add the outcome of one call; the oldest leaves once there are more than `size`."""
        calls = self._calls
        was_failed, was_slow = calls[0] if len(calls) == self._size else _NOTHING
        calls.append((failed, slow))
        if failed != was_failed:
            self._failures += 1 if failed else -1
        if slow != was_slow:
            self._slow += 1 if slow else -1

    def health(self) -> Health:
        """Return the counts, kept up to date by `record`."""
        return Health(len(self._calls), self._failures, self._slow)


class TimeWindow:
    """The calls of the last `seconds`: of the bucket that runs, and of the nine before it.

    Args:
        seconds: Length of the window, above 0. What is older is never counted; what is younger than nine
            tenths of it always is.
        clock: Tells the buckets apart, by its monotonic reading.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._bucket_seconds = seconds / BUCKETS
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()

    def record(self, *, failed: bool, slow: bool) -> None:
        """Add the outcome of one call to the bucket that runs."""
        running = self._forget()
        if not self._buckets or self._buckets[-1].index != running:
            self._buckets.append(_Bucket(running))
        bucket = self._buckets[-1]
        bucket.calls += 1
        bucket.failures += failed
        bucket.slow += slow

    def health(self) -> Health:
        """Return the sums over the buckets."""
        self._forget()
        calls = failures = slow = 0
        for bucket in self._buckets:
            calls += bucket.calls
            failures += bucket.failures
            slow += bucket.slow
        return Health(calls, failures, slow)

    def _forget(self) -> int:
        running = math.floor(self._clock.monotonic() / self._bucket_seconds)
        while self._buckets and self._buckets[0].index <= running - BUCKETS:
            self._buckets.popleft()
        return running


class _Bucket:
    __slots__ = ("calls", "failures", "index", "slow")

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls = 0
        self.failures = 0
        self.slow = 0
