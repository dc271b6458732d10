"""Repeats measurements that the host of a virtual machine disturbed.

A host gives the processors of a virtual machine to other machines for milliseconds at a time. Linux counts
this as stolen time (`/proc/stat`, proc(5)). A 99th percentile over two seconds describes the slowest 20 ms,
so that one such moment would determine it. Only the stolen time decides whether a measurement is repeated,
never its result.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import TypeVar

from bench.processes import stolen_seconds
from src.resilience.clock import SystemClock

T = TypeVar("T")

TRIES = 2
TOLERATED = 0.02
"""The largest share of the cores' time that may be stolen."""

_CLOCK = SystemClock()


class Undisturbed:
    """Repeats disturbed measurements.

    Args:
        stolen: Returns the stolen seconds of a core's time so far.
        monotonic: Returns the elapsed seconds.

    Attributes:
        repeated: The number of measurements that were repeated.
    """

    def __init__(
        self,
        stolen: Callable[[], float] = stolen_seconds,
        monotonic: Callable[[], float] = _CLOCK.monotonic,
    ) -> None:
        self._stolen = stolen
        self._monotonic = monotonic
        self.repeated = 0

    def measure(self, make: Callable[[], T]) -> T:
        """Return the first undisturbed result of `make`, or the least disturbed of `TRIES` results."""
        made: list[tuple[float, T]] = []
        while True:
            began, before = self._monotonic(), self._stolen()
            result = make()
            share = (self._stolen() - before) / (self._monotonic() - began)
            made.append((share, result))
            if share <= TOLERATED or len(made) == TRIES:
                return min(made, key=itemgetter(0))[1]
            self.repeated += 1
