"""Lists of points, newest first."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from redis.exceptions import ResponseError

from src.analytics.columns import POINT_DTYPE
from src.analytics.points import Point
from src.analytics.rollup import Floats, Integers
from src.analytics.window import HOUR_US
from src.resilience.redis.port import Argument, Reply
from src.services.errors import StorageUnavailableError
from src.services.metrics.ingest import Position, StoredPoint
from src.services.metrics.labels import LabelFilters, matches
from src.storage.metrics.layout import HEAD_POINTS, key_of
from src.storage.metrics.series.series_dictionary import UNLABELLED, SeriesDictionary
from src.storage.redis.connection import Command
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

TYPES_AT_ONCE = 100
"""The number of types whose points are read in one round trip."""

_log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""The number of attempts to read points while their series change."""

MAX_PAGE = 50_000
"""The largest number of points in one round trip of the search for points of matching series."""

LOOP_BYTES = 100_000
"""Longer replies are sorted in a thread, so that the event loop goes on. A minute may have millions."""

LOOP_BYTES = 100_000
"""Longer replies are sorted in a thread, so that the event loop goes on. A minute may have millions."""

_MAX_PLACE = 2**32

_ListedPoint: TypeAlias = tuple[int, int, float, int]
"""The timestamp in µs, the place, the value, and the number of the series."""

T = TypeVar("T")


class ListReader:
    """Reads lists.

    Args:
        link: The link to Redis.
        dictionary: Returns the series dictionary of a type, in at least the given version.
    """

    def __init__(
        self, link: RedisLink, dictionary: Callable[[str, str | None], Awaitable[SeriesDictionary]]
    ) -> None:
        self._link = link
        self._dictionary = dictionary
        self._script = storage_script("metrics/readers/metrics_list")
        self._read_all = storage_script("metrics/readers/read_all")

    async def newest(
        self,
        metric_type: str | None,
        limit: int,
        before: Position | None = None,
        filters: LabelFilters | None = None,
    ) -> list[StoredPoint]:
        """Return up to `limit` (1 or more) points, newest first, that follow the position `before`.

        With `filters`, these are points of matching series. Without `metric_type`, they are the newest of all
        types. This reads at most `limit` types, and also all types that have a point as new as `before` or
        newer, `TYPES_AT_ONCE` in a round trip. A type with foreign values is logged and left out.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        if metric_type is not None:
            return await self._page(metric_type, limit, before, filters)
        found: list[StoredPoint] = []
        for chunk in _chunks(await self._types_to_read(limit, before), TYPES_AT_ONCE):
            _, latest = chunk[0]
            # Both are compared as scores of a sorted set, which round timestamps of remote years.
            if len(found) == limit and latest < float(found[-1].point.timestamp_us):
                break  # the following types have no newer points
            names = [name for name, _ in chunk]
            found = await self._newest_with(found, names, limit, before, filters)
        return found

    async def _types_to_read(self, limit: int, before: Position | None) -> list[tuple[str, float]]:
        """Return the types that may have one of the `limit` newest points after `before`, latest first.

        These are all types whose latest point is as new as `before` or newer, since any number of their
        points may follow `before`. Of the other types, the first `limit` are enough, since at least one point
        of each follows `before`. All are read in one step, so that no type is skipped that gets a point
        during the read.
        """
        place: Argument = "+inf" if before is None else f"({before.timestamp_us}"
        commands: list[Command] = [
            ("ZREVRANGEBYSCORE", "types", place, "-inf", "WITHSCORES", "LIMIT", 0, limit)
        ]
        if before is not None:
            commands.insert(0, ("ZREVRANGEBYSCORE", "types", "+inf", before.timestamp_us, "WITHSCORES"))
        arguments: list[Argument] = [word for command in commands for word in (len(command), *command)]
        replies = await self._link.run(self._read_all, ["types"], arguments)
        return [
            (name.decode(), float(latest))
            for reply in replies
            for name, latest in zip(reply[::2], reply[1::2], strict=True)
        ]

    async def _newest_with(
        self,
        found: list[StoredPoint],
        names: Sequence[str],
        limit: int,
        before: Position | None,
        filters: LabelFilters | None,
    ) -> list[StoredPoint]:
        """Return the `limit` newest points of `found` and of the types `names` that follow `before`."""
        size = min(limit, max(2, 2 * limit // len(names)))
        reading = dict.fromkeys(names, before)
        while reading:
            pages = await asyncio.gather(
                *(self._readable_page(name, size, place, filters) for name, place in reading.items())
            )
            found = sorted((*found, *(point for page in pages for point in page)), key=_place, reverse=True)
            found = found[:limit]
            # A type whose page was full may have more points. Read on while its last point is in the list.
            reading = {
                page[-1].point.type: Position(*_place(page[-1]), page[-1].generation)
                for page in pages
                if len(page) == size and (len(found) < limit or _place(page[-1]) > _place(found[-1]))
            }
            size = min(limit, 2 * size)
        return found

    async def _readable_page(
        self, metric_type: str, limit: int, before: Position | None, filters: LabelFilters | None
    ) -> list[StoredPoint]:
        """Return a page, or an empty list if the type has foreign values."""
        try:
            return await self._page(metric_type, limit, before, filters)
        except (ResponseError, ValueError) as error:
            log_unreadable(metric_type, error)
            return []

    async def _page(
        self, metric_type: str, limit: int, before: Position | None, filters: LabelFilters | None
    ) -> list[StoredPoint]:
        page: list[StoredPoint] = []
        size = limit
        while len(page) < limit:
            part = await self._read(metric_type, size, before)
            if filters:
                wanted = {number for number, text in part.labels.items() if matches(filters, text)}
                page += part.stored(metric_type, wanted)
            else:
                page += part.stored(metric_type, part.labels.keys())
            if len(part.points) < size:
                break
            timestamp, place, *_ = part.points[-1]
            before = Position(timestamp, metric_type, place, part.generation)
            size = min(2 * size, MAX_PAGE)
        return page[:limit]

    async def _read(self, metric_type: str, limit: int, before: Position | None) -> "_Part":
        """Read `limit` points, and the labels of their series.

        Raises:
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        for _ in range(MAX_ATTEMPTS):
            generation, version, points = await self._read_points(metric_type, limit, before)
            if {series for *_, series in points} <= {UNLABELLED}:
                return _Part(generation, points, {UNLABELLED: ""})
            dictionary = await self._dictionary(metric_type, version)
            if dictionary.version == version:
                return _Part(generation, points, dict(dictionary.series()))
        raise StorageUnavailableError("the series of this type are changing too fast")

    async def _read_points(
        self, metric_type: str, limit: int, before: Position | None
    ) -> tuple[str, str, list[_ListedPoint]]:
        """Return the generation of the type, the version of its series dictionary, and points."""
        arguments: list[Argument] = [key_of(metric_type, ""), limit]
        end = (2**63 - 1, 0)
        if before is not None:
            arguments += divmod(before.timestamp_us, HOUR_US)
            if metric_type == before.type:
                end = before.timestamp_us, before.arrival
            else:  # in the same µs, types are listed in order of their names
                end = before.timestamp_us, _MAX_PLACE if metric_type < before.type else 0
        generation, version, *reply = await self._link.run(
            self._script, [key_of(metric_type, "hours")], arguments
        )
        if (
            before is not None
            and metric_type == before.type
            and before.generation not in {"", generation.decode()}
        ):
            end = before.timestamp_us, 0  # a rewrite has changed the places
        if sum(map(len, _strings(reply))) > LOOP_BYTES:
            points = await asyncio.to_thread(_newest, reply, limit, end)
        else:
            points = _newest(reply, limit, end)
        return generation.decode(), version.decode(), points


class _Part(NamedTuple):
    """Points of one read, and the labels of their series by number."""

    generation: str
    points: Sequence[_ListedPoint]
    labels: Mapping[int, str]

    def stored(self, metric_type: str, wanted: Container[int]) -> list[StoredPoint]:
        """Return the points of the series whose numbers are `wanted`."""
        return [
            StoredPoint(Point(metric_type, timestamp, value, self.labels[series]), place, self.generation)
            for timestamp, place, value, series in self.points
            if series in wanted
        ]


def log_unreadable(metric_type: str, error: Exception) -> None:
    """Log that a type is left out of a read over all types."""
    _log.warning("metric_type_unreadable", extra={"type": metric_type, "reason": str(error)})


class _Points(NamedTuple):
    timestamps: Integers
    places: Integers
    values: Floats
    series: Integers


def _strings(reply: Sequence[Reply]) -> Iterator[bytes]:
    """Yield the strings of points of a reply of the script."""
    for head, minutes in zip(reply[1::3], reply[2::3], strict=True):
        yield head
        yield from minutes[1::2]


def _newest(reply: Sequence[Reply], limit: int, end: tuple[int, int]) -> list[_ListedPoint]:
    """Return up to `limit` points of a reply of the script that are before `end`, newest first."""
    parts = []
    for hour, head, minutes in zip(*(iter(reply),) * 3, strict=True):
        parts.append(_decoded(hour, head, 0))
        parts += [_decoded(hour, points, HEAD_POINTS) for points in minutes[1::2]]
    if not parts:
        return []
    timestamps, places, values, series = map(np.concatenate, zip(*parts, strict=True))
    end_us, end_place = end
    before = (timestamps < end_us) | ((timestamps == end_us) & (places < end_place))
    timestamps, places, values, series = timestamps[before], places[before], values[before], series[before]
    order = np.lexsort((places, timestamps))[::-1][:limit]
    columns = (timestamps, places, values, series)
    return list(zip(*(column[order].tolist() for column in columns), strict=True))


def _decoded(hour: int, points: bytes, first_place: int) -> _Points:
    table = np.frombuffer(points, dtype=POINT_DTYPE)
    timestamps = table["offset"].astype(np.int64) + hour * HOUR_US
    places = np.arange(first_place, first_place + len(table))
    return _Points(timestamps, places, table["value"], table["series"].astype(np.int64))


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _place(stored: StoredPoint) -> tuple[int, str, int]:
    return stored.point.timestamp_us, stored.point.type, stored.arrival
