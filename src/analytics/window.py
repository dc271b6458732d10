"""Stretches of time, and how whole buckets cover them.

A bucket of length `step` and number `index` holds the instants from `index * step` up to and without
`(index + 1) * step`, counted from 1970-01-01T00:00:00Z; numbers before that are negative. All in
microseconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


class Span(NamedTuple):
    """Buckets of one length that follow one another.

    Attributes:
        step_us: Length of each; 1 where no bucket fits and single instants are meant.
        first: Number of the first.
        stop: Number after the last.
    """

    step_us: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Window:
    """The instants after `start_us` up to and with `end_us`, in microseconds since 1970.

    Raises:
        ValueError: It ends before it starts.
    """

    start_us: int
    end_us: int

    def __post_init__(self) -> None:
        if self.end_us < self.start_us:
            raise ValueError("a window must not end before it starts")

    @classmethod
    def rolling(cls, now_us: int, seconds: int) -> "Window":
        """Return the last `seconds` (0 or more) before `now_us`: now included, the far edge not."""
        return cls(now_us - 1_000_000 * seconds, now_us)

    def cover(self, steps_us: Sequence[int], *, open_ended: bool = False) -> Iterator[Span]:
        """Cover the window exactly: every instant of it lies in one span, and no other does.

        The longest buckets that fit are taken, so the number of spans depends on the steps alone; what no
        bucket fits, less than one of the shortest at each edge, comes as spans of step 1.

        Args:
            steps_us: Lengths of buckets, longest first, each a multiple of the next.
            open_ended: Whether nothing lies after the window's end. Then its last buckets may reach beyond
                it, and there is no edge to cover piecemeal.

        Returns:
            The spans in order of time, none of them empty.
        """
        first, stop = self.start_us + 1, self.end_us + 1
        if not open_ended:
            return _cover(first, stop, steps_us)
        beyond = -(-stop // steps_us[0]) * steps_us[0]
        spans = _cover(first, beyond, steps_us)
        return (
            Span(step, low, min(high, -(-stop // step))) for step, low, high in spans if low * step < stop
        )


def _cover(first: int, stop: int, steps_us: Sequence[int]) -> Iterator[Span]:
    if first >= stop:
        return
    if not steps_us:
        yield Span(1, first, stop)
        return
    step, shorter = steps_us[0], steps_us[1:]
    low, high = -(-first // step), stop // step
    if low >= high:
        yield from _cover(first, stop, shorter)
        return
    yield from _cover(first, low * step, shorter)
    yield Span(step, low, high)
    yield from _cover(high * step, stop, shorter)
