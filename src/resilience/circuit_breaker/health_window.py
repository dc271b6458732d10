"""The window of the most recent calls, by count or by time.

Both windows use a fixed amount of memory. They are the two sliding windows of resilience4j. The time window
has ten buckets, as in the rolling health metrics of Polly, so that its length is exact to a tenth.
"""

import math
from collections import deque
from typing import NamedTuple, Protocol

from ..clock import Clock

BUCKETS = 10
"""The number of buckets of a time window. A bucket leaves the window as a whole."""


_NOTHING = (False, False)
"""The change of a window that is not full when a call is added: no failed and no slow call is removed."""


class Health(NamedTuple):
    """The number of calls in a window, of failures and of slow calls. A call can be both failed and slow."""

    calls: int
    failures: int
    slow: int


class HealthWindow(Protocol):
    """The outcomes of the most recent calls."""

    def record(self, failed: bool, slow: bool) -> None:
        """Add the outcome of one call."""
        ...

    def health(self) -> Health:
        """Return the counts of the calls in the window."""
        ...


class CountWindow:
    """A window over the last calls.

    Args:
        size: The number of calls, at least 1.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: deque[tuple[bool, bool]] = deque(maxlen=size)
        self._failures = 0
        self._slow = 0

    def record(self, failed: bool, slow: bool) -> None:
        """Add the outcome of one call. If there are more than `size` calls, the oldest is removed."""
        calls = self._calls
        was_failed, was_slow = calls[0] if len(calls) == self._size else _NOTHING
        calls.append((failed, slow))
        if failed != was_failed:
            self._failures += 1 if failed else -1
        if slow != was_slow:
            self._slow += 1 if slow else -1

    def health(self) -> Health:
        """Return the counts of the calls in the window."""
        return Health(len(self._calls), self._failures, self._slow)


class TimeWindow:
    """A window over time: the current bucket and the nine buckets before it.

    Args:
        seconds: The length of the window, above 0. Calls older than this are not counted. Calls younger than
            nine tenths of it are always counted.
        clock: The clock whose monotonic time determines the bucket.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._bucket_seconds = seconds / BUCKETS
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()

    def record(self, failed: bool, slow: bool) -> None:
        """Add the outcome of one call to the current bucket."""
        current = self._drop_old_buckets()
        if not self._buckets or self._buckets[-1].index != current:
            self._buckets.append(_Bucket(current))
        bucket = self._buckets[-1]
        bucket.calls += 1
        bucket.failures += failed
        bucket.slow += slow

    def health(self) -> Health:
        """Return the sums over the buckets."""
        self._drop_old_buckets()
        calls = failures = slow = 0
        for bucket in self._buckets:
            calls += bucket.calls
            failures += bucket.failures
            slow += bucket.slow
        return Health(calls, failures, slow)

    def _drop_old_buckets(self) -> int:
        """Remove the buckets that have left the window, and return the index of the current bucket."""
        current = math.floor(self._clock.monotonic() / self._bucket_seconds)
        while self._buckets and self._buckets[0].index <= current - BUCKETS:
            self._buckets.popleft()
        return current


class _Bucket:
    __slots__ = ("calls", "failures", "index", "slow")

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls = 0
        self.failures = 0
        self.slow = 0
