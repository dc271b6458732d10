"""A period of time, divided into steps of equal length for a chart."""

from collections.abc import Iterator
from dataclasses import dataclass

from src.analytics.window import Window


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a period of time.

    Steps begin at multiples of their length since 1970-01-01T00:00:00Z, independent of the beginning of the
    period. The same time is therefore always divided in the same way. The first and the last step may lie
    only partly in the period, and only these parts count.

    Attributes:
        start_us: The beginning of the period, inclusive, in µs since 1970.
        stop_us: The end of the period, exclusive, in µs since 1970.
        step_us: The length of a step in µs, at least 1.

    Raises:
        ValueError: The period is empty, or the length of a step is less than 1.
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
        """The beginning of the first step, which is `start_us` or earlier."""
        return self.start_us // self.step_us * self.step_us

    def __len__(self) -> int:
        return -(-self.stop_us // self.step_us) - self.start_us // self.step_us

    def times(self) -> range:
        """Return the beginning of each step."""
        return range(self.first_us, self.stop_us, self.step_us)

    def windows(self) -> Iterator[Window]:
        """Yield the part of each step that lies in the period."""
        for time in self.times():
            start, stop = max(time, self.start_us), min(time + self.step_us, self.stop_us)
            yield Window(start - 1, stop - 1)  # a window excludes its start and includes its end
