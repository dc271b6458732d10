"""Summaries by labels, from blocks of series and from the points that no block has yet."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple, TypeVar

import orjson

from src.analytics.aggregate import Aggregate
from src.analytics.columns import POINT_BYTES
from src.analytics.window import HOUR_US, Window
from src.resilience.redis.port import Argument, Reply
from src.services.errors import StorageUnavailableError
from src.services.metrics.labels import Group, Groups, LabelQuery
from src.services.metrics.series import SeriesError
from src.storage.metrics.layout import HEAD, key_of
from src.storage.metrics.readers.window_reader import WindowReader
from src.storage.metrics.series.series_dictionary import SeriesDictionary
from src.storage.metrics.series.series_folder import SeriesFolder, is_complete
from src.storage.metrics.series.series_sums import CountSums, GroupSums, HourPart, SeriesSums
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

READ_TIMEOUT_SECONDS = 5.0
MAX_ATTEMPTS = 5
"""How often a read is repeated whose series or points are changed meanwhile."""

HOURS_AT_ONCE = 50
"""Hours read in one round trip."""
POINTS_AT_ONCE = 100_000
"""Points read in one round trip."""
MAX_UNFOLDED_HOURS = 500
"""Hours that are read along with the block of all hours at most: they have points that it does not have."""

MAX_HOURS = 50_000
MAX_POINT_HOURS = 60
"""Hours read for one answer at most, and those of which all points are read: the ones that a step divides."""

NO_DICTIONARY = "0"
"""The version of the series dictionary of a type without labels."""

_EMPTY = Aggregate.empty()
_Sums = TypeVar("_Sums", bound=SeriesSums)
_Hour = tuple[int, int, int, str]
"""Number, first µs, µs after the last and detail of an hour, as `series_read.lua` takes them."""


class LabelReader:
    """Reads summaries by labels.

    What one script reads is consistent: each write is in all of it, or in none. One script reads all time, or
    `HOURS_AT_ONCE` hours. Only after a deletion, and while more than `MAX_UNFOLDED_HOURS` hours have points
    that no block has, all time is read in parts of `HOURS_AT_ONCE` hours.

    Args:
        link: To Redis.
        windows: Reads the summaries of types without labels.
        dictionary: Returns the series dictionary of a type, of at least the version that is given.
        folder: Adds points to blocks, of hours that have too many points that no block has.
    """

    def __init__(
        self,
        link: RedisLink,
        windows: WindowReader,
        dictionary: Callable[[str, str | None], Awaitable[SeriesDictionary]],
        folder: SeriesFolder,
    ) -> None:
        self._link = link
        self._windows = windows
        self._dictionary = dictionary
        self._folder = folder
        self._script = storage_script("metrics/readers/series_read")

    async def groups(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        """Summarize the series of `metric_type` that match `query`, group by group.

        Args:
            metric_type: The type.
            window: What to summarize; None is all points.
            query: Which series, and how they are grouped. Without `group_by` there is exactly one group.

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
            windows: In order of time; they do not overlap. Or just None, which is all points.
            query: Which series, and how they are grouped. Without `group_by` there is one group a window.

        Raises:
            SeriesError: That would take too much reading.
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        bounded = [window for window in windows if window is not None]
        hours = _hours_of(bounded)
        sums = await self._read(
            metric_type, hours, lambda dictionary: GroupSums.begin(dictionary, bounded, query)
        )
        if sums is None:
            return await self._unlabelled(metric_type, windows, query)
        return await asyncio.to_thread(sums.groups)

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        """Return the labels of each series of `metric_type`, and how many points it has."""
        counted = await self.counts(metric_type)
        if counted is None:
            return []
        dictionary, counts = counted
        found = Counter[str]()
        for number, text in dictionary.series():
            found[text] += counts[number]
        return [(orjson.loads(text) if text else {}, count) for text, count in found.items() if count]

    async def counts(self, metric_type: str) -> tuple[SeriesDictionary, list[int]] | None:
        """Return the series of `metric_type`, and how many points each has by its number.

        None if the type has no labels.
        """
        sums = await self._read(metric_type, [], CountSums.begin)
        return None if sums is None else (sums.dictionary, sums.counts.tolist())

    async def _read(
        self, metric_type: str, hours: Sequence[_Hour], begin: Callable[[SeriesDictionary], _Sums]
    ) -> _Sums | None:
        """Return the sums of `hours`, or of all time if there are none; None if the type has no labels.

        Args:
            metric_type: The type.
            hours: What to read of which hours.
            begin: Returns the sums of nothing.

        Raises:
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        for _ in range(MAX_ATTEMPTS):
            with suppress(_ChangedError):
                return await self._try_to_read(metric_type, hours, begin)
        raise StorageUnavailableError("the series of this type are changing too fast")

    async def _try_to_read(
        self, metric_type: str, hours: Sequence[_Hour], begin: Callable[[SeriesDictionary], _Sums]
    ) -> _Sums | None:
        first, rest = hours[:HOURS_AT_ONCE], hours[HOURS_AT_ONCE:]
        part = await self._read_part(metric_type, first)
        if part.version == NO_DICTIONARY:
            return None
        dictionary = await self._dictionary(metric_type, part.version)
        if dictionary.version != part.version:
            raise _ChangedError
        sums = begin(dictionary)
        if part.is_complete:
            sums = await self._add(metric_type, sums, part)
        else:
            await self._fold_soon(metric_type)
            rest = await self._all_hours(metric_type)
        for start in range(0, len(rest), HOURS_AT_ONCE):
            sums = await self._read_and_add(metric_type, rest[start : start + HOURS_AT_ONCE], sums)
        return sums

    async def _read_and_add(self, metric_type: str, hours: Sequence[_Hour], sums: _Sums) -> _Sums:
        """Return `sums` with a further part."""
        for _ in range(MAX_ATTEMPTS):
            part = await self._read_part(metric_type, hours)
            dictionary = await self._dictionary(metric_type, part.version)
            if not dictionary.extends(sums.dictionary):
                break
            with suppress(_ChangedError):
                return await self._add(metric_type, sums, part)
        raise _ChangedError

    async def _read_part(self, metric_type: str, hours: Sequence[_Hour]) -> "_Part":
        """Read `hours`, or all time if there are none."""
        arguments: list[Argument] = [key_of(metric_type, ""), POINTS_AT_ONCE, MAX_UNFOLDED_HOURS]
        for hour in hours:
            arguments += hour
        version, generation, all_block, is_all, *found = await self._link.run(
            self._script, [key_of(metric_type, "u")], arguments, timeout_seconds=READ_TIMEOUT_SECONDS
        )
        return _Part(version.decode(), generation, all_block, bool(is_all) and is_complete(all_block), found)

    async def _add(self, metric_type: str, sums: _Sums, part: "_Part") -> _Sums:
        """Return `sums` with all points of `part`.

        Those that the script did not return are read now, as they were when the script ran: strings of points
        only grow, except by deletions.

        Raises:
            _ChangedError: Points of the type were deleted meanwhile.
        """
        hours = [HourPart(hour, block, points[3::4]) for hour, block, points in part.hours]
        sums = await asyncio.to_thread(sums.plus, part.all_block, hours)
        left_out = [
            (hour, *place)
            for hour, _, points in part.hours
            for *place, text in zip(*(points[n::4] for n in range(4)), strict=True)
            if not text
        ]
        for hour, minute, start, stop in left_out:
            key = key_of(metric_type, f"r:{hour}" if minute == HEAD else f"r:{hour}:{minute}")
            for first, last in pairwise([*range(start, stop, POINTS_AT_ONCE), stop]):
                some = await self._link.send("GETRANGE", key, first * POINT_BYTES, last * POINT_BYTES - 1)
                sums = await asyncio.to_thread(sums.plus, b"", [HourPart(hour, b"", [some])])
        if left_out:
            generation = await self._link.send("HGET", key_of(metric_type, "d"), "generation")
            if (generation or b"") != part.generation:
                raise _ChangedError
            await self._fold_soon(metric_type)
        return sums

    async def _fold_soon(self, metric_type: str) -> None:
        """Add the points that no block has to blocks, in the background: reading so many takes long."""
        hours = await self._link.send("HKEYS", key_of(metric_type, "u"))
        self._folder.add([part for hour in hours for part in (metric_type.encode(), int(hour))])

    async def _all_hours(self, metric_type: str) -> list[_Hour]:
        hours = await self._link.send("ZRANGE", key_of(metric_type, "hours"), 0, -1)
        return [(int(hour), 0, HOUR_US, "block") for hour in hours]

    async def _unlabelled(
        self, metric_type: str, windows: Sequence[Window | None], query: LabelQuery
    ) -> list[Groups]:
        """Summarize a type of which no point has labels."""
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


def _hours_of(windows: Sequence[Window]) -> list[_Hour]:
    """Return number, first µs, µs after the last and detail of each hour that `windows` touch."""
    hours: list[_Hour] = []
    points_only = 0
    bounds = [(some.start_us + 1, some.end_us + 1) for some in windows if some.end_us > some.start_us]
    for hour, parts in groupby(_parts(bounds), key=itemgetter(0)):
        start = hour * HOUR_US
        edges = [edge - start for _, *some in parts for edge in some]
        is_whole = edges == [0, HOUR_US]
        points_only += not is_whole
        if len(hours) > MAX_HOURS or points_only > MAX_POINT_HOURS:
            raise SeriesError(
                "step",
                f"more than {MAX_HOURS} hours, or {MAX_POINT_HOURS} of which only points will do, would have "
                "to be read: request a shorter time, or steps of whole hours",
            )
        hours.append((hour, edges[0], edges[-1], "block" if is_whole else "points"))
    return hours


def _parts(bounds: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield hour, first µs and µs after the last of each part of an hour that one window covers."""
    for first, stop in bounds:
        for hour in range(first // HOUR_US, (stop - 1) // HOUR_US + 1):
            yield hour, max(first, hour * HOUR_US), min(stop, (hour + 1) * HOUR_US)


class _Part(NamedTuple):
    """What `series_read.lua` returns.

    Attributes:
        version: The version of the series dictionary.
        generation: The generation of the type.
        all_block: The block of all hours; empty if `hours` has all points.
        is_complete: Whether all that was to be read is in here.
        hours: Number, block, and minute, first place, place after the last and points by turns, of each hour.
    """

    version: str
    generation: bytes
    all_block: bytes
    is_complete: bool
    hours: Sequence[tuple[int, bytes, Sequence[Reply]]]


class _ChangedError(Exception):
    """Points were deleted, or series, while they were read."""
