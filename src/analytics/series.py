"""A stretch of time in steps of equal length, for a chart."""

from collections.abc import Iterator
from dataclasses import dataclass

from src.analytics.window import Window


@dataclass(frozen=True, slots=True)
class Steps:
    """The instants from `start_us` up to and without `stop_us`, in steps of `step_us`.

    Steps begin at multiples of their length, counted from 1970-01-01T00:00:00Z, wherever the stretch begins:
    so the same time is divided in the same way whenever one asks. Of the first and the last step, only what
    lies in the stretch counts. All in microseconds.

    Raises:
        ValueError: The stretch is empty, or the step is.
    """

    start_us: int
    stop_us: int
    step_us: int

    def __post_init__(self) -> None:
        if self.stop_us <= self.start_us:
            raise ValueError("stop_us must be after start_us")
        if self.step_us < 1:
            raise ValueError("step_us must be at least 1")

    @property
    def first_us(self) -> int:
        """Where the first step begins: at `start_us`, or before it."""
        return self.start_us // self.step_us * self.step_us

    def __len__(self) -> int:
        return -(-self.stop_us // self.step_us) - self.start_us // self.step_us

    def times(self) -> range:
        """Return where each step begins."""
        return range(self.first_us, self.stop_us, self.step_us)

    def windows(self) -> Iterator[Window]:
        """Yield what of each step lies in the stretch."""
        for time in self.times():
            start, stop = max(time, self.start_us), min(time + self.step_us, self.stop_us)
            yield Window(start - 1, stop - 1)  # a window lacks its first instant and has its last
