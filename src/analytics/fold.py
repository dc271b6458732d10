"""A batch of points, folded by type and bucket before it is stored.

What is then merged into the store is one record a bucket, however many points the batch has in it.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

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


@dataclass(frozen=True, slots=True)
class Fold:
    """The points of one type in one batch.

    Points are numbered from 1 in order of time. Equal timestamps, which are all that arrival is asked about,
    keep the batch's order.

    Attributes:
        total: All of them.
        rollups: By length of bucket (`ROLLUP_STEPS_US`) and by its number.
        sketch: That of all of them, as contents by page.
        sketches: Such sketches by length of bucket (`SKETCH_STEPS_US`) and by its number.
        hours: By number of the hour, its points' µs within the hour and their values, in order of arrival.
    """

    total: Rollup
    rollups: Mapping[int, Mapping[int, Rollup]]
    sketch: Mapping[int, bytes]
    sketches: Mapping[int, Mapping[int, Mapping[int, bytes]]]
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

    # Buckets of several lengths often have the same points in a batch.
    @cache
    def rollup(first: int, stop: int) -> Rollup:
        return Rollup.of_values(values[first:stop], (timestamps[stop - 1], stop, values[stop - 1]))

    @cache
    def sketch(first: int, stop: int) -> Mapping[int, bytes]:
        return pages_of(Counter(bins[first:stop]))

    return Fold(
        total=rollup(0, len(points)),
        rollups={
            step: {number: rollup(first, stop) for number, first, stop in _buckets(timestamps, step)}
            for step in ROLLUP_STEPS_US
        },
        sketch=sketch(0, len(points)),
        sketches={
            step: {
                number: sketch(first, stop)
                for number, first, stop in _buckets(timestamps, step)
                if (number + 1) * step > sketches_from_us
            }
            for step in SKETCH_STEPS_US
        },
        hours={
            hour: ([timestamp - hour * HOUR_US for timestamp in timestamps[first:stop]], values[first:stop])
            for hour, first, stop in _buckets(timestamps, HOUR_US)
        },
    )


def _buckets(timestamps: Sequence[int], step_us: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each bucket that some of the sorted `timestamps` are in, and the slice of these."""
    first = 0
    while first < len(timestamps):
        number = timestamps[first] // step_us
        stop = bisect_left(timestamps, (number + 1) * step_us, first)
        yield number, first, stop
        first = stop
