"""The latencies of the latest calls, and their quantiles."""

from bisect import bisect_left, insort
from collections import deque


class RecentLatencies:
    """The latest `size` latencies, at least 1, kept in order of time and in order of length."""

    def __init__(self, size: int) -> None:
        self._latest: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, seconds: float) -> None:
        """Add a latency; the oldest one leaves when there are more than `size`."""
        if len(self._latest) == self._latest.maxlen:
            del self._sorted[bisect_left(self._sorted, self._latest[0])]
        self._latest.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float:
        """Return the latency that `share` of the calls, in (0, 1), do not exceed, by the nearest rank."""
        return self._sorted[int(share * len(self._sorted))]
