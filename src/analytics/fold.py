"""A batch of points, folded by type and bucket before it is stored.

What is then merged into the store is one record a bucket, however many points the batch has in it.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

from src.analytics.points import Point
from src.analytics.rollup import Rollup
from src.analytics.sketch import bin_of, pages_of
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US

ROLLUP_STEPS_US = (DAY_US, HOUR_US, MINUTE_US)
"""Lengths of the buckets that have a rollup, longest first."""

SKETCH_STEPS_US = (6 * HOUR_US, HOUR_US, 10 * MINUTE_US, MINUTE_US)
"""Lengths of the buckets that have a sketch, longest first.

A sketch is a few hundred numbers, so a window should be made of few: with four lengths the last 24 hours
take about a dozen, with hours and minutes alone it would be 50.
"""


Bucket: TypeAlias = tuple[int, int]
"""Its length in µs, and its number."""

ALL_TIME: Final[Bucket] = (0, 0)
"""The bucket that every point is in, and that has no length."""

_Slice: TypeAlias = tuple[int, int]
"""Of the points in order of time: the place of the first, and that after the last."""


class Fold(NamedTuple):
    """The points of one type in one batch.

    In a batch, buckets of several lengths often have the same points. So each record comes once, with all the
    buckets that it is of.

    Points are numbered from 1 in order of time. Equal timestamps, which are all that arrival is asked about,
    keep the batch's order.

    Attributes:
        total: The rollup of all of them.
        rollups: Rollups, each with its buckets: `ALL_TIME`, and those of `ROLLUP_STEPS_US` with any points.
        sketches: Sketches as contents by page, each with its buckets: `ALL_TIME`, and those of
            `SKETCH_STEPS_US` with any points, unless they are too old for one.
        hours: By number of the hour, its points' µs within the hour and their values, in order of arrival.
    """

    total: Rollup
    rollups: Sequence[tuple[Rollup, tuple[Bucket, ...]]]
    sketches: Sequence[tuple[Mapping[int, bytes], tuple[Bucket, ...]]]
    hours: Mapping[int, tuple[Sequence[int], Sequence[float]]]


def fold(points: Iterable[Point], sketches_from_us: int) -> dict[str, Fold]:
    """Fold a batch of points.

    Args:
        points: In order of arrival.
        sketches_from_us: Buckets that end at this time or before get no sketch, in µs since 1970.

    Returns:
        By type, in order of their first points.
    """
    by_type: defaultdict[str, list[Point]] = defaultdict(list)
    for point in points:
        by_type[point.type].append(point)
    return {name: _fold_type(some, sketches_from_us) for name, some in by_type.items()}


def _fold_type(points: list[Point], sketches_from_us: int) -> Fold:
    points.sort(key=attrgetter("timestamp_us"))
    _, timestamps, values = zip(*points, strict=True)
    bins = list(map(bin_of, values))
    rollups = [
        (Rollup.of_values(values[first:stop], (timestamps[stop - 1], stop, values[stop - 1])), buckets)
        for (first, stop), buckets in _sharing(timestamps, ROLLUP_STEPS_US)
    ]
    sketches = [
        (pages_of(Counter(bins[first:stop])), buckets)
        for (first, stop), buckets in _sharing(timestamps, SKETCH_STEPS_US, sketches_from_us)
    ]
    hours = {
        hour: ([timestamp - hour * HOUR_US for timestamp in timestamps[first:stop]], values[first:stop])
        for hour, first, stop in _slices(timestamps, HOUR_US)
    }
    total, _ = rollups[0]
    return Fold(total, rollups, sketches, hours)


def _sharing(
    timestamps: Sequence[int], steps: tuple[int, ...], from_us: float = -math.inf
) -> Iterable[tuple[_Slice, tuple[Bucket, ...]]]:
    """Return the buckets that end after `from_us`, by the slice of the sorted `timestamps` that is in them.

    The slice of all of them comes first.
    """
    everything = (0, len(timestamps))
    minute = timestamps[0] // MINUTE_US
    if timestamps[-1] // MINUTE_US == minute and (minute + 1) * MINUTE_US > from_us:  # as in most ticks
        return [(everything, _around(minute, steps))]
    shared = {everything: [ALL_TIME]}
    for step in steps:
        for number, first, stop in _slices(timestamps, step):
            if (number + 1) * step > from_us:
                shared.setdefault((first, stop), []).append((step, number))
    return [(some, tuple(buckets)) for some, buckets in shared.items()]


@lru_cache  # there is one minute at a time that nearly all points are of
def _around(minute: int, steps: tuple[int, ...]) -> tuple[Bucket, ...]:
    """Return `ALL_TIME`, and the buckets of `steps` that a minute is in."""
    return ALL_TIME, *((step, minute * MINUTE_US // step) for step in steps)


def _slices(timestamps: Sequence[int], step_us: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each bucket that some of the sorted `timestamps` are in, and the slice of these."""
    first = 0
    while first < len(timestamps):
        number = timestamps[first] // step_us
        stop = bisect_left(timestamps, (number + 1) * step_us, first)
        yield number, first, stop
        first = stop
