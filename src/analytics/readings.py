"""The data that a store must read to summarize windows: whole days and hours, or parts of hours."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from src.analytics.window import DAY_US, HOUR_US, MINUTE_US, Window

Detail: TypeAlias = Literal["day", "hour", "span", "minutes", "points"]


class Reading(NamedTuple):
    """The read of one day or hour.

    Attributes:
        number: The number of the day or hour since 1970.
        first_us: The first µs that is needed, since the beginning of the day or hour.
        stop_us: The end of the needed time, exclusive, since the beginning of the day or hour.
        detail: The needed data: the record of the day or hour, the records of its minutes, together or one by
            one, or its points. A minute that is needed only partly is always read as points.
    """

    number: int
    first_us: int
    stop_us: int
    detail: Detail

    @property
    def start_us(self) -> int:
        """The beginning of the day or hour, in µs since 1970."""
        return self.number * (DAY_US if self.detail == "day" else HOUR_US)


def readings(windows: Sequence[Window]) -> Iterator[Reading]:
    """Yield the reads for a summary of `windows`, in order of time.

    Args:
        windows: The windows in order of time, without overlaps.
    """
    parts = [
        (window.start_us + 1, window.end_us + 1) for window in windows if window.end_us > window.start_us
    ]
    index, end = 0, -math.inf
    while index < len(parts):
        first, stop = parts[index]
        first = int(max(first, end))
        if first % DAY_US == 0 and stop - first >= DAY_US:
            yield Reading(first // DAY_US, 0, DAY_US, "day")
            end = first + DAY_US
        else:
            hour = first // HOUR_US
            end = (hour + 1) * HOUR_US
            last = index
            while last + 1 < len(parts) and parts[last + 1][0] < end:
                last += 1
            rest = [(low, min(high, end)) for low, high in parts[index + 1 : last + 1]]
            yield _hour_reading(hour, [(first, min(stop, end)), *rest])
        while index < len(parts) and parts[index][1] <= end:
            index += 1


def _hour_reading(hour: int, parts: Sequence[tuple[int, int]]) -> Reading:
    """Return the read of an hour of which only `parts` are needed."""
    start = hour * HOUR_US
    first, *inner, stop = (bound - start for part in parts for bound in part)
    if not inner and stop - first == HOUR_US:
        return Reading(hour, first, stop, "hour")
    if not inner:
        return Reading(hour, first, stop, "span")
    is_cut = any(bound % MINUTE_US for bound in inner)
    return Reading(hour, first, stop, "points" if is_cut else "minutes")
