"""What is read to summarize windows: whole days and hours where they fit, minutes and points elsewhere."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from src.analytics.window import DAY_US, HOUR_US, MINUTE_US, Window

Detail: TypeAlias = Literal["day", "hour", "minutes", "points"]


class Reading(NamedTuple):
    """A day or an hour to be read.

    Attributes:
        number: Number of the day or hour since 1970.
        first_us: The first µs within it that is needed.
        stop_us: The µs after the last.
        detail: How much of it is needed: its one record, the records of its minutes, or its points. Minutes
            that `first_us` or `stop_us` cuts are always needed as points.
    """

    number: int
    first_us: int
    stop_us: int
    detail: Detail

    @property
    def start_us(self) -> int:
        """Where the day or hour begins, in µs since 1970."""
        return self.number * (DAY_US if self.detail == "day" else HOUR_US)


def readings(windows: Sequence[Window]) -> Iterator[Reading]:
    """Yield what `windows` are summarized from, in order of time.

    Args:
        windows: In order of time; they do not overlap.
    """
    parts = [
        (window.start_us + 1, window.end_us + 1) for window in windows if window.end_us > window.start_us
    ]
    place, end = 0, -math.inf
    while place < len(parts):
        first, stop = parts[place]
        first = int(max(first, end))
        if first % DAY_US == 0 and stop - first >= DAY_US:
            yield Reading(first // DAY_US, 0, DAY_US, "day")
            end = first + DAY_US
        else:
            hour = first // HOUR_US
            end = (hour + 1) * HOUR_US
            last = place
            while last + 1 < len(parts) and parts[last + 1][0] < end:
                last += 1
            rest = [(low, min(high, end)) for low, high in parts[place + 1 : last + 1]]
            yield _hour_reading(hour, [(first, min(stop, end)), *rest])
        while place < len(parts) and parts[place][1] <= end:
            place += 1


def _hour_reading(hour: int, parts: Sequence[tuple[int, int]]) -> Reading:
    """Return how an hour is read, of which `parts` are needed."""
    start = hour * HOUR_US
    first, *inner, stop = (bound - start for part in parts for bound in part)
    if not inner and stop - first == HOUR_US:
        return Reading(hour, first, stop, "hour")
    is_cut = any(bound % MINUTE_US for bound in inner)
    return Reading(hour, first, stop, "points" if is_cut else "minutes")
