"""A batch of points, folded by type and bucket before it is stored.

What is then merged into the store is one record a bucket, however many points the batch has in it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from src.analytics.points import Point
from src.analytics.rollup import Rollup
from src.analytics.sketch import bin_of, merge_bins
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US

T = TypeVar("T")

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

    Points are numbered from 1: hour by hour, and within an hour as they came. So equal timestamps, which are
    all that arrival is asked about, keep the batch's order.

    Attributes:
        total: All of them.
        rollups: By length of bucket (`ROLLUP_STEPS_US`) and by its number.
        bins: Counts by sketch bin of all of them.
        sketches: Such counts by length of bucket (`SKETCH_STEPS_US`) and by its number.
        hours: By number of the hour, each point's µs within the hour, and its value, in order of arrival.
    """

    total: Rollup
    rollups: Mapping[int, Mapping[int, Rollup]]
    bins: Mapping[int, int]
    sketches: Mapping[int, Mapping[int, Mapping[int, int]]]
    hours: Mapping[int, Sequence[tuple[int, float]]]


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
    hours: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for point in points:
        hour, offset = divmod(point.timestamp_us, HOUR_US)
        hours[hour].append((offset, point.value))
    minutes: defaultdict[int, list[tuple[int, int, float]]] = defaultdict(list)
    arrival = 0
    for hour, entries in hours.items():
        for offset, value in entries:
            arrival += 1
            timestamp = hour * HOUR_US + offset
            minutes[timestamp // MINUTE_US].append((timestamp, arrival, value))
    rollups = _lift(
        {minute: Rollup.of_entries(entries) for minute, entries in minutes.items()},
        ROLLUP_STEPS_US,
        lambda parts: Rollup.empty().merge(*parts),
    )
    bins: dict[int, Mapping[int, int]] = {
        minute: Counter([bin_of(value) for _, _, value in entries]) for minute, entries in minutes.items()
    }
    longest = SKETCH_STEPS_US[0]
    recent = {
        minute: counts
        for minute, counts in bins.items()
        if (minute * MINUTE_US // longest + 1) * longest > sketches_from_us
    }
    sketches = {
        step: {number: part for number, part in parts.items() if (number + 1) * step > sketches_from_us}
        for step, parts in _lift(recent, SKETCH_STEPS_US, merge_bins).items()
    }
    total = Rollup.empty().merge(*rollups[DAY_US].values())
    return Fold(total, rollups, merge_bins(bins.values()), sketches, hours)


def _lift(
    finest: Mapping[int, T], steps_us: Sequence[int], merge: Callable[[list[T]], T]
) -> dict[int, Mapping[int, T]]:
    """Merge the shortest buckets into ever longer ones, and return them all by length."""
    lifted = {steps_us[-1]: finest}
    for step, shorter in zip(steps_us[-2::-1], steps_us[:0:-1], strict=True):
        groups: defaultdict[int, list[T]] = defaultdict(list)
        for number, part in lifted[shorter].items():
            groups[number * shorter // step].append(part)
        lifted[step] = {number: merge(parts) for number, parts in groups.items()}
    return lifted
