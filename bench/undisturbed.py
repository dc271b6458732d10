"""Measuring while the machine is ours: what the host disturbed is measured again.

The host of a virtual machine takes its processors away, for milliseconds at a time, while it serves others.
Linux counts that as stolen time (`/proc/stat`, proc(5)). A 99th percentile over two seconds is about the
worst 20 ms of them, so one such moment would be all that it tells of. What decides is the stolen time alone,
never what was measured.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import TypeVar

from bench.processes import stolen_seconds
from src.resilience.clock import SystemClock

T = TypeVar("T")

TRIES = 2
TOLERATED = 0.02
"""How much of the cores' time may be stolen."""

_CLOCK = SystemClock()


class Undisturbed:
    """Repeats what was disturbed.

    Args:
        stolen: Returns the seconds stolen so far, of a core's time.
        monotonic: Returns the seconds by the clock on the wall.

    Attributes:
        repeated: How many measurements were made in place of another.
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
        """Return what `make` returns: the first that was not disturbed, else of `TRIES` the one least so."""
        made: list[tuple[float, T]] = []
        while True:
            began, before = self._monotonic(), self._stolen()
            result = make()
            share = (self._stolen() - before) / (self._monotonic() - began)
            made.append((share, result))
            if share <= TOLERATED or len(made) == TRIES:
                return min(made, key=itemgetter(0))[1]
            self.repeated += 1
