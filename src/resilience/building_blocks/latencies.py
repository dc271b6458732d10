"""The latencies of the most recent calls, and their quantiles."""

from bisect import bisect_left, insort
from collections import deque


class RecentLatencies:
    """The most recent latencies, kept both in order of arrival and in ascending order.

    Args:
        size: The largest number of latencies, at least 1.
    """

    def __init__(self, size: int) -> None:
        self._latest: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, seconds: float) -> None:
        """Add a latency in seconds. If there are more than `size`, the oldest one is removed."""
        if len(self._latest) == self._latest.maxlen:
            del self._sorted[bisect_left(self._sorted, self._latest[0])]
        self._latest.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float:
        """Return a quantile by the nearest-rank method. There must be at least one latency.

        Args:
            share: The share of calls that do not exceed the returned latency, in (0, 1).
        """
        return self._sorted[int(share * len(self._sorted))]
