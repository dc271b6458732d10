"""Sums by series, of blocks of series and of points, part after part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import orjson

from src.analytics.aggregate import Aggregate
from src.analytics.rollup import Integers
from src.analytics.series_block import SeriesBlock
from src.analytics.window import HOUR_US, Window
from src.services.metrics.labels import MAX_GROUPS, Group, Groups, LabelQuery
from src.storage.metrics.series.series_dictionary import SeriesDictionary
from src.storage.metrics.series.series_folder import decode_all_block, decode_hour_block, decode_points

_UNFOLDED_PLACE = 2**62
"""The place of the first point that no block has: it arrived later than those of the blocks."""
_ALL_TIME = -(2**62), 2**62


class HourPart(NamedTuple):
    """What is stored of an hour, or some of it.

    Attributes:
        hour: The number of the hour.
        block: Its block of series; may be empty.
        points: Strings of points that are not in the block, in order of arrival within equal timestamps.
    """

    hour: int
    block: bytes
    points: Sequence[bytes]


class SeriesSums(Protocol):
    """Sums by series."""

    @property
    def dictionary(self) -> SeriesDictionary:
        """The series."""
        ...

    def plus(self, all_block: bytes, hours: Sequence[HourPart]) -> Self:
        """Return these sums with a block of all hours, and with parts of some hours.

        The points of an hour must be added in order of arrival within equal timestamps.
        """
        ...


@dataclass(frozen=True, slots=True)
class CountSums:
    """How many points each series has.

    Attributes:
        dictionary: The series.
        counts: int64, by number of the series.
    """

    dictionary: SeriesDictionary
    counts: Integers

    @classmethod
    def begin(cls, dictionary: SeriesDictionary) -> "CountSums":
        """Return the sums of nothing."""
        return cls(dictionary, np.zeros(2**16, dtype=np.int64))

    def plus(self, all_block: bytes, hours: Sequence[HourPart]) -> "CountSums":
        """Return these counts with those of the parts."""
        counts = self.counts.copy()
        for block in (decode_all_block(all_block), *(decode_hour_block(part.block) for part in hours)):
            counts[block.series] += block.records["count"].astype(np.int64)
        for part in hours:
            counts += np.bincount(decode_points(part.hour, [b"".join(part.points)]).series, minlength=2**16)
        return replace(self, counts=counts)


@dataclass(frozen=True, slots=True)
class GroupSums:
    """The summaries of groups of series in windows.

    Attributes:
        dictionary: The series.
        query: Which series, and how they are grouped.
        bounds: The first µs of each window, and the µs after its last.
        wanted: Whether a series matches, by its number.
        groups_by_series: The number of the group of each series.
        keys: The label values of each group.
        block: The sums: those of group g in window n have the number ``n * max(1, len(keys)) + g``.
        points: How many points were added that no block had.
    """

    dictionary: SeriesDictionary
    query: LabelQuery
    bounds: tuple[Integers, Integers]
    wanted: npt.NDArray[np.bool_]
    groups_by_series: Integers
    keys: Sequence[tuple[str | None, ...]]
    block: SeriesBlock
    points: int = 0

    @classmethod
    def begin(cls, dictionary: SeriesDictionary, windows: Sequence[Window], query: LabelQuery) -> "GroupSums":
        """Return the sums of nothing. Without `windows` there is one, of all time."""
        edges = [(window.start_us + 1, window.end_us + 1) for window in windows] or [_ALL_TIME]
        starts, stops = np.array(edges, dtype=np.int64).T
        return cls(
            dictionary, query, (starts, stops), *_numbered_groups(dictionary, query), SeriesBlock.empty()
        )

    def plus(self, all_block: bytes, hours: Sequence[HourPart]) -> "GroupSums":
        """Return these sums with those of the parts."""
        starts, stops = self.bounds
        blocks = [self.block, decode_all_block(all_block).select(self.wanted).group(self.groups_by_series)]
        added = self.points
        for hour, block, points in hours:
            window = int(starts.searchsorted(hour * HOUR_US, side="right")) - 1
            grouped = decode_hour_block(block).select(self.wanted).group(self.groups_by_series)
            blocks.append(grouped.shift_numbers(window * self._width))
            series, timestamps, values = decode_points(hour, [b"".join(points)])
            places = starts.searchsorted(timestamps, side="right") - 1
            found = self.wanted[series] & (places >= 0) & (timestamps < stops[places])
            numbers = self.groups_by_series[series[found]] + places[found] * self._width
            blocks.append(
                SeriesBlock.from_points(
                    numbers, timestamps[found], values[found], first_place=_UNFOLDED_PLACE + added
                )
            )
            added += len(series)
        return replace(self, block=SeriesBlock.merge(blocks), points=added)

    def groups(self) -> list[Groups]:
        """Return the groups of each window, in order of their label values."""
        by_window: list[list[Group]] = [[] for _ in self.bounds[0]]
        for number, rollup, sketch in self.block.aggregates():
            window, place = divmod(number, self._width)
            by_window[window].append(Group(self._labels(self.keys[place]), Aggregate(rollup, sketch)))
        for some in by_window:
            some.sort(key=lambda group: [group.labels.get(name, "") for name in self.query.group_by])
        if not self.query.group_by:
            return [Groups(some or [Group({}, Aggregate.empty())]) for some in by_window]
        return [Groups(some[:MAX_GROUPS], is_truncated=len(some) > MAX_GROUPS) for some in by_window]

    @property
    def _width(self) -> int:
        return max(1, len(self.keys))

    def _labels(self, key: tuple[str | None, ...]) -> dict[str, str]:
        names = zip(self.query.group_by, key, strict=True)
        return {name: value for name, value in names if value is not None}


def _numbered_groups(
    dictionary: SeriesDictionary, query: LabelQuery
) -> tuple[npt.NDArray[np.bool_], Integers, list[tuple[str | None, ...]]]:
    """Return which series match, the number of each one's group, and the label values of the groups.

    The groups are numbered in the order of their first series, so that blocks in which each series is a group
    of its own keep their order.
    """
    wanted = np.zeros(2**16, dtype=np.bool_)
    groups = np.zeros(2**16, dtype=np.int64)
    places: dict[tuple[str | None, ...], int] = {}
    for number, text in sorted(dictionary.series()):
        labels = orjson.loads(text) if text else {}
        if query.matches(labels):
            wanted[number] = True
            groups[number] = places.setdefault(query.group_values(labels), len(places))
    return wanted, groups, list(places)
