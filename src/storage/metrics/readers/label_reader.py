"""Summaries by labels, from blocks of series and from points that are in no block yet."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from src.analytics.aggregate import Aggregate
from src.analytics.rollup import Integers
from src.analytics.series_block import SeriesBlock
from src.analytics.window import HOUR_US, Window
from src.resilience.redis.port import Argument, Reply
from src.services.errors import StorageUnavailableError
from src.services.metrics.labels import MAX_GROUPS, Group, Groups, LabelQuery
from src.services.metrics.series import SeriesError
from src.storage.metrics.layout import key_of
from src.storage.metrics.readers.window_reader import WindowReader
from src.storage.metrics.series.series_dictionary import SeriesDictionary
from src.storage.metrics.series.series_folder import (
    decode_all_block,
    decode_hour_block,
    decode_points,
    is_complete,
)
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

READ_TIMEOUT_SECONDS = 5.0
MAX_ATTEMPTS = 5
"""The number of attempts to read while the series change."""

HOURS_AT_ONCE = 50
"""The number of hours that are read in one round trip if there is no block of all hours."""

MAX_HOURS = 50_000
MAX_POINT_HOURS = 60
"""The largest number of hours in one answer, and of hours that a step divides. From a divided hour, all
points are read."""

UNFOLDED_PLACE = 2**62
"""The place of the first point that is in no block. Points in blocks arrived earlier."""

NO_DICTIONARY = b"0"
"""The version of the series dictionary of a type without labels."""

_EMPTY = Aggregate.empty()


class LabelReader:
    """Reads summaries by labels.

    Args:
        link: The link to Redis.
        windows: Reads the summaries of types without labels.
        dictionary: Returns the series dictionary of a type, in at least the given version.
    """

    def __init__(
        self,
        link: RedisLink,
        windows: WindowReader,
        dictionary: Callable[[str, str | None], Awaitable[SeriesDictionary]],
    ) -> None:
        self._link = link
        self._windows = windows
        self._dictionary = dictionary
        self._script = storage_script("metrics/readers/series_read")

    async def groups(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        """Summarize the series of `metric_type` that match `query`, group by group.

        Args:
            metric_type: The type.
            window: The window; None for all points.
            query: The filter and the grouping of the series. Without `group_by` there is exactly one group.

        Raises:
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        (groups,) = await self.groups_by_window(metric_type, [window], query)
        return groups

    async def groups_by_window(
        self, metric_type: str, windows: Sequence[Window | None], query: LabelQuery
    ) -> list[Groups]:
        """Summarize the series of `metric_type` that match `query`, group by group, in each of `windows`.

        Args:
            metric_type: The type.
            windows: Windows in order of time that do not overlap, or one None for all points.
            query: The filter and the grouping of the series. Without `group_by`, each window has one group.

        Raises:
            SeriesError: Too many hours would have to be read.
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        bounded = [window for window in windows if window is not None]
        found = await self._read(metric_type, bounded)
        if found is None:
            return await self._unlabelled(metric_type, windows, query)
        return await asyncio.to_thread(_groups, found, bounded, query)

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        """Return the labels of each series of `metric_type`, and its number of points."""
        counted = await self.counts(metric_type)
        if counted is None:
            return []
        dictionary, counts = counted
        found = Counter[str]()
        for number, text in dictionary.series():
            found[text] += counts[number]
        return [(orjson.loads(text) if text else {}, count) for text, count in found.items() if count]

    async def counts(self, metric_type: str) -> tuple[SeriesDictionary, list[int]] | None:
        """Return the series of `metric_type`, and the number of points by the number of the series.

        Return None if the type has no labels.
        """
        found = await self._read(metric_type, [])
        return None if found is None else (found.dictionary, await asyncio.to_thread(_counts, found))

    async def _read(self, metric_type: str, windows: Sequence[Window]) -> "_Stored | None":
        """Read the stored data of `windows`, or of all time without windows.

        Return None if the type has no labels.

        Raises:
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        for _ in range(MAX_ATTEMPTS):
            version, all_block, *hours = await self._run(metric_type, _hours_of(windows))
            if version == NO_DICTIONARY:
                return None
            if not is_complete(all_block):
                all_block, hours = b"", await self._read_all_hours(metric_type)
            dictionary = await self._dictionary(metric_type, version.decode())
            if dictionary.version == version.decode():
                return _Stored(dictionary, all_block, hours)
        raise StorageUnavailableError("the series of this type are changing too fast")

    async def _run(self, metric_type: str, hours: Sequence[Argument]) -> list[Reply]:
        reply: list[Reply] = await self._link.run(
            self._script,
            [key_of(metric_type, "u")],
            [key_of(metric_type, ""), *hours],
            timeout_seconds=READ_TIMEOUT_SECONDS,
        )
        return reply

    async def _read_all_hours(self, metric_type: str) -> list[Reply]:
        """Read each hour, because a deletion has not merged the block of all hours again yet."""
        hours = await self._link.send("ZRANGE", key_of(metric_type, "hours"), 0, -1)
        found: list[Reply] = []
        for first in range(0, len(hours), HOURS_AT_ONCE):
            arguments: list[Argument] = []
            for hour in hours[first : first + HOURS_AT_ONCE]:
                arguments += (hour, 0, HOUR_US, "block")
            _, _, *some = await self._run(metric_type, arguments)
            found += some
        return found

    async def _unlabelled(
        self, metric_type: str, windows: Sequence[Window | None], query: LabelQuery
    ) -> list[Groups]:
        """Summarize a type whose points have no labels."""
        bounded = [window for window in windows if window is not None]
        if not query.matches({}):
            aggregates = [_EMPTY] * len(windows)
        elif bounded:
            aggregates = await self._windows.aggregates(metric_type, bounded)
        else:
            aggregates = [await self._windows.aggregate(metric_type, None)]
        return [
            Groups([] if query.group_by and not aggregate.rollup.count else [Group({}, aggregate)])
            for aggregate in aggregates
        ]


def _hours_of(windows: Sequence[Window]) -> list[Argument]:
    """Return four arguments for each hour in `windows`: its number, its start, its end and its detail."""
    arguments: list[Argument] = []
    points_only = 0
    bounds = [(some.start_us + 1, some.end_us + 1) for some in windows if some.end_us > some.start_us]
    for hour, parts in groupby(_parts(bounds), key=itemgetter(0)):
        start = hour * HOUR_US
        edges = [edge - start for _, *some in parts for edge in some]
        is_whole = edges == [0, HOUR_US]
        points_only += not is_whole
        if len(arguments) > 4 * MAX_HOURS or points_only > MAX_POINT_HOURS:
            raise SeriesError(
                "step",
                f"more than {MAX_HOURS} hours, or {MAX_POINT_HOURS} hours point by point, would have to be "
                "read: request a shorter time, or steps of whole hours",
            )
        arguments += (hour, edges[0], edges[-1], "block" if is_whole else "points")
    return arguments


def _parts(bounds: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the hour, the first µs and the µs after the last of each part of an hour in one window."""
    for first, stop in bounds:
        for hour in range(first // HOUR_US, (stop - 1) // HOUR_US + 1):
            yield hour, max(first, hour * HOUR_US), min(stop, (hour + 1) * HOUR_US)


class _Stored(NamedTuple):
    """The stored data of a type.

    Attributes:
        dictionary: The series.
        all_block: The block of all hours; empty if `hours` has all points.
        hours: For each hour, its number, its block, and the points that are in neither block.
    """

    dictionary: SeriesDictionary
    all_block: bytes
    hours: Sequence[tuple[int, bytes, Sequence[Reply]]]


def _groups(stored: _Stored, windows: Sequence[Window], query: LabelQuery) -> list[Groups]:
    wanted, groups, keys = _numbered_groups(stored.dictionary, query)
    starts = np.array([window.start_us + 1 for window in windows] or [-(2**62)], dtype=np.int64)
    stops = np.array([window.end_us + 1 for window in windows] or [2**62], dtype=np.int64)
    width = max(1, len(keys))  # the groups of window n are numbered from n * width on
    blocks = [decode_all_block(stored.all_block).select(wanted).group(groups)]
    for hour, block, points in stored.hours:
        window = int(starts.searchsorted(hour * HOUR_US, side="right")) - 1
        blocks.append(decode_hour_block(block).select(wanted).group(groups).shift_numbers(window * width))
        series, timestamps, values = decode_points(hour, points)
        places = starts.searchsorted(timestamps, side="right") - 1
        found = wanted[series] & (places >= 0) & (timestamps < stops[places])
        numbers = groups[series[found]] + places[found] * width
        blocks.append(
            SeriesBlock.from_points(numbers, timestamps[found], values[found], first_place=UNFOLDED_PLACE)
        )
    by_window: list[list[Group]] = [[] for _ in starts]
    for number, rollup, sketch in SeriesBlock.merge(blocks).aggregates():
        window, place = divmod(number, width)
        by_window[window].append(Group(_labels(query, keys[place]), Aggregate(rollup, sketch)))
    for some in by_window:
        some.sort(key=lambda group: [group.labels.get(name, "") for name in query.group_by])
    if not query.group_by:
        return [Groups(some or [Group({}, _EMPTY)]) for some in by_window]
    return [Groups(some[:MAX_GROUPS], is_truncated=len(some) > MAX_GROUPS) for some in by_window]


def _counts(stored: _Stored) -> list[int]:
    """Return the number of points of each series, by its number."""
    counts = np.zeros(2**16, dtype=np.int64)
    block = decode_all_block(stored.all_block)
    counts[block.series] += block.records["count"].astype(np.int64)
    for hour, hour_block, points in stored.hours:
        block = decode_hour_block(hour_block)
        counts[block.series] += block.records["count"].astype(np.int64)
        counts += np.bincount(decode_points(hour, points).series, minlength=2**16)
    found: list[int] = counts.tolist()
    return found


def _numbered_groups(
    dictionary: SeriesDictionary, query: LabelQuery
) -> tuple[npt.NDArray[np.bool_], Integers, list[tuple[str | None, ...]]]:
    """Return a mask of the matching series, the group of each series, and the label values of the groups.

    The groups are numbered in the order of their first series. So a block keeps its order if each series is a
    separate group.
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


def _labels(query: LabelQuery, key: tuple[str | None, ...]) -> dict[str, str]:
    return {name: value for name, value in zip(query.group_by, key, strict=True) if value is not None}
