"""Metrics in Redis: rollups by minute, hour and day, quantile sketches, and the points themselves.

`src.storage.metrics.layout` tells which key holds what. A batch is one script, a summary one transaction, so
each sees all of the other or nothing.
"""

import asyncio
import hashlib
import logging
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from redis.exceptions import ResponseError

from src.analytics.fold import ALL_TIME, ROLLUP_STEPS_US, SKETCH_STEPS_US
from src.analytics.points import Point
from src.analytics.rollup import Rollup
from src.analytics.sketch import LogBinSketch, bin_of, bins_of
from src.analytics.window import HOUR_US, Window
from src.resilience.clock import Clock
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.services.metrics.ingest import (
    Aggregate,
    Idempotency,
    IdempotencyKeyReusedError,
    Position,
    StoredPoint,
    TypeOverview,
)
from src.storage.metrics.layout import (
    key_of,
    points_of,
    raw_bounds,
    raw_ranges,
    rollup_place,
    sketch_place,
    values_of,
)
from src.storage.metrics.write import MetricWrite, is_unfinished, metric_write
from src.storage.redis.connection import Argument, Command, Reply
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import SERVER_TIME, load_script

_log = logging.getLogger(__name__)

IDEMPOTENCY_SECONDS = 24 * 3600

TYPES_AT_ONCE = 100
"""Types of which points are read in one round trip."""
RECORDS_AT_ONCE = 500
"""Types of which the record is read in one round trip."""

T = TypeVar("T")

_ARRIVAL_LIMIT = 256**6


class RedisMetricStore:
    """The metric store.

    Args:
        link: The way to Redis.
        clock: Tells which buckets are too old for a sketch to be worth sending.
        retention_seconds: How long points and their rollups by minute, hour and day are kept, after the end
            of the hour or day they are kept in; 0 keeps them for ever. Less than a day shortens the windows
            that can be summarized. What is older on arrival counts in the summary of all points alone, which
            forgets nothing.
        time_source: Lua that defines `now_us()`.

    Raises:
        ValueError: `retention_seconds` is negative.
    """

    def __init__(
        self, link: RedisLink, clock: Clock, retention_seconds: int = 0, *, time_source: str = SERVER_TIME
    ) -> None:
        if retention_seconds < 0:
            raise ValueError("retention_seconds must be 0 or more")
        self._link = link
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._add_points = load_script("add_points", "now", "points", time_source=time_source)
        self._singles = link.tick_loader(self._add_singles)
        self._list_points = load_script("list_points", time_source=time_source)
        self._read_all = load_script("read_all")

    async def add(self, points: Sequence[Point], idempotency: Idempotency | None = None) -> bool:
        """Store `points`, all or none, visible to the next read.

        Returns:
            True when they were stored now, False when this very write had been stored before, up to 24 h ago.

        Raises:
            IdempotencyKeyReusedError: The key came before with another fingerprint. Nothing is stored.
            StorageRefusedError: Redis refuses. Nothing is stored.
            StorageUnavailableError: Redis is away, or refused in mid-write. It is not known whether the
                points are stored.
            ResponseError: There is a foreign value at one of the keys. Nothing is stored.
        """
        if idempotency is None and len(points) == 1:
            if (error := await self._singles.add(points[0])) is not None:
                raise error
            return True
        return await self._add(points, idempotency)

    async def _add_singles(self, points: list[Point]) -> list[BaseException | None]:
        """Store points that came in one tick; return for each why it is not stored."""
        try:
            await self._add(points)
        except ResponseError as error:  # a foreign value at a key of one type: nothing is stored
            if len({point.type for point in points}) > 1:
                return await self._add_by_type(points)
            return [error] * len(points)
        return [None] * len(points)

    async def _add_by_type(self, points: list[Point]) -> list[BaseException | None]:
        by_type: defaultdict[str, list[Point]] = defaultdict(list)
        for point in points:
            by_type[point.type].append(point)
        replies = await asyncio.gather(*map(self._add, by_type.values()), return_exceptions=True)
        errors = {
            name: reply if isinstance(reply, BaseException) else None
            for name, reply in zip(by_type, replies, strict=True)
        }
        return [errors[point.type] for point in points]

    def write_of(self, points: Sequence[Point]) -> MetricWrite:
        """Return what a script is told that stores `points` as `add` would."""
        return metric_write(points, self._clock.now(), self._retention_seconds)

    async def _add(self, points: Sequence[Point], idempotency: Idempotency | None = None) -> bool:
        keys, fingerprint = ["types"], ""
        if idempotency is not None:
            keys.append(f"idem:{hashlib.sha256(idempotency.key.encode()).hexdigest()}")
            fingerprint = idempotency.fingerprint
        arguments, seconds = self.write_of(points)
        verdict = await self._link.run(
            self._add_points, keys, [fingerprint, IDEMPOTENCY_SECONDS, *arguments], timeout_seconds=seconds
        )
        if is_unfinished(verdict):
            raise StorageUnavailableError("Redis refused in mid-write: it is not known what is stored")
        if verdict < 0:
            raise IdempotencyKeyReusedError("the idempotency key came before with another request")
        return bool(verdict)

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        """Summarize the points of `metric_type` in `window`; None means all of them.

        The quantiles of a window know its points of the last 25 hours only, so they want a window that lies
        within these; everything else is exact for every window.

        Raises:
            StorageUnavailableError: Redis is away.
        """
        if window is None:
            return await self._aggregate_all(metric_type)
        # Points of the future are rare. As long as there are none the longest buckets do for the newest part.
        latest_us, aggregate = await self._aggregate_window(metric_type, window, open_ended=True)
        if latest_us > window.end_us:
            _, aggregate = await self._aggregate_window(metric_type, window, open_ended=False)
        return aggregate

    async def newest(
        self, metric_type: str | None, limit: int, before: Position | None = None
    ) -> list[StoredPoint]:
        """Return up to `limit` (1 or more) points, newest first, that come after the place `before`.

        Without `metric_type`, the newest over all types. That reads at most `limit` types, and besides all
        that have a point as new as `before` or newer, `TYPES_AT_ONCE` in a round trip. A type with a foreign
        value in place of its points is left out, and logged.

        Raises:
            StorageUnavailableError: Redis is away.
        """
        if metric_type is not None:
            return await self._page(metric_type, limit, before)
        found: list[StoredPoint] = []
        for chunk in _chunks(await self._types_to_read(limit, before), TYPES_AT_ONCE):
            _, latest = chunk[0]
            # Both as a score has it: rounded, in years far from ours.
            if len(found) == limit and latest < float(found[-1].point.timestamp_us):
                break  # nor have the types after this one anything newer
            found = await self._newest_with(found, [name for name, _ in chunk], limit, before)
        return found

    async def types(self) -> list[TypeOverview]:
        """Return every type, the one with the latest timestamp first, then by name.

        A type with a foreign value in place of its figures is left out, and logged.

        Raises:
            StorageUnavailableError: Redis is away.
        """
        names = [name.decode() for name in await self._link.send("ZREVRANGE", "types", 0, -1)]
        overviews: list[TypeOverview] = []
        for chunk in _chunks(names, RECORDS_AT_ONCE):
            for name, record in zip(chunk, await self._records(chunk), strict=True):
                try:
                    rollup = _rollup(record)
                except ValueError as error:
                    _skip(name, error)
                    continue
                if rollup.count:  # the data may have been flushed between the two
                    overviews.append(TypeOverview(name, rollup.count, rollup.latest_us, rollup.latest_value))
        return sorted(overviews, key=lambda overview: (-overview.latest_timestamp_us, overview.type))

    async def _records(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the rollup of all points of each type; None where a foreign value is in its place."""
        try:
            return await self._link.send_all(map(_all_command, names))
        except ResponseError:
            return await asyncio.gather(*map(self._record, names))

    async def _record(self, name: str) -> bytes | None:
        try:
            record: bytes | None = await self._link.send(*_all_command(name))
        except ResponseError as error:
            _skip(name, error)
            return None
        return record

    async def _types_to_read(self, limit: int, before: Position | None) -> list[tuple[str, float]]:
        """Return, latest first, the types that may have one of the `limit` newest points after `before`.

        That is all whose latest point is not after that place, for they may have any number there; and of the
        others the first `limit`, for each of these has at least one there. Known in one step, so that a type
        that gets a point while the list is read is not passed over.
        """
        place: Argument = "+inf" if before is None else f"({before.timestamp_us}"
        commands: list[Command] = [
            ("ZREVRANGEBYSCORE", "types", place, "-inf", "WITHSCORES", "LIMIT", 0, limit)
        ]
        if before is not None:
            commands.insert(0, ("ZREVRANGEBYSCORE", "types", "+inf", before.timestamp_us, "WITHSCORES"))
        replies = await self._transaction(commands)
        return [
            (name.decode(), float(latest))
            for reply in replies
            for name, latest in zip(reply[::2], reply[1::2], strict=True)
        ]

    async def _newest_with(
        self, found: list[StoredPoint], names: Sequence[str], limit: int, before: Position | None
    ) -> list[StoredPoint]:
        """Return the `limit` newest of `found` and of the points of `names` that come after `before`."""
        size = min(limit, max(2, 2 * limit // len(names)))
        reading = dict.fromkeys(names, before)
        while reading:
            pages = await asyncio.gather(
                *(self._readable_page(name, size, place) for name, place in reading.items())
            )
            found = sorted((*found, *(point for page in pages for point in page)), key=_place, reverse=True)
            found = found[:limit]
            # A type whose page was full may have more. They count while the last one read made it.
            reading = {
                page[-1].point.type: Position(*_place(page[-1]))
                for page in pages
                if len(page) == size and (len(found) < limit or _place(page[-1]) > _place(found[-1]))
            }
            size = min(limit, 2 * size)
        return found

    async def _aggregate_all(self, metric_type: str) -> Aggregate:
        commands = [_all_command(metric_type), _sketch_command(metric_type, *ALL_TIME)]
        record, sketch = await self._transaction(commands)
        rollup = _rollup(record)
        return Aggregate(rollup, LogBinSketch(_bins([sketch]), rollup.minimum, rollup.maximum))

    async def _aggregate_window(
        self, metric_type: str, window: Window, *, open_ended: bool
    ) -> tuple[int, Aggregate]:
        """Return the latest timestamp of all points, and the summary of those in `window`."""
        hours, edges = _edge_commands(metric_type, window, open_ended=open_ended)
        rollups = _rollup_commands(metric_type, window, open_ended=open_ended)
        sketches = _sketch_commands(metric_type, window, open_ended=open_ended)
        commands = [_all_command(metric_type), *edges, *rollups, *sketches]
        replies = iter(await self._transaction(commands))
        total = _rollup(next(replies))
        parts, values = [], []
        for hour in hours:
            some = values_of(next(replies))
            values += some
            parts += [Rollup.of_values(some, latest) for latest in points_of(hour, next(replies))]
        records = [record for _ in rollups for record in next(replies) if record is not None]
        rollup = Rollup.decode(*records).merge(*parts)
        bins = Counter(_bins(replies))
        bins.update(map(bin_of, values))
        return total.latest_us, Aggregate(rollup, LogBinSketch(bins, rollup.minimum, rollup.maximum))

    async def _transaction(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies of commands that read, all as of one moment."""
        try:
            *_, results = await self._link.send_all([("MULTI",), *commands, ("EXEC",)])
        except StorageRefusedError:  # a full memory takes no transaction, but a script that reads
            words = chain.from_iterable((len(command), *command) for command in commands)
            results = await self._link.run(self._read_all, (), tuple(words))
        replies: list[Reply] = results
        return replies

    async def _readable_page(
        self, metric_type: str, limit: int, before: Position | None
    ) -> list[StoredPoint]:
        """Return what `_page` does, and nothing of a type where a foreign value is in the way."""
        try:
            return await self._page(metric_type, limit, before)
        except (ResponseError, struct.error) as error:
            _skip(metric_type, error)
            return []

    async def _page(self, metric_type: str, limit: int, before: Position | None) -> list[StoredPoint]:
        arguments: list[Argument] = [key_of(metric_type, "raw:"), limit]
        if before is not None:
            arguments += divmod(before.timestamp_us, HOUR_US)
            if metric_type == before.type:
                arguments.append(before.arrival)
            else:  # of the same µs, all of a type that comes later, none of one that came before
                arguments.append(_ARRIVAL_LIMIT if metric_type < before.type else 0)
        reply = await self._link.run(self._list_points, [key_of(metric_type, "hours")], arguments)
        return [
            StoredPoint(Point(metric_type, timestamp, value), arrival)
            for hour, members in zip(reply[::2], reply[1::2], strict=True)
            for timestamp, arrival, value in points_of(int(hour), members)
        ]


def _skip(metric_type: str, error: Exception) -> None:
    """Log that a type is left out of what is read of all types."""
    _log.warning("metric_type_unreadable", extra={"type": metric_type, "reason": str(error)})


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def _all_command(metric_type: str) -> Command:
    return ("HGET", key_of(metric_type, "all"), "all")


def _sketch_command(metric_type: str, step_us: int, number: int) -> Command:
    suffix, _ = sketch_place(step_us, number)
    return ("HGETALL", key_of(metric_type, suffix))


def _edge_commands(metric_type: str, window: Window, *, open_ended: bool) -> tuple[list[int], list[Command]]:
    """Return the hours of the points that no bucket covers, and two commands for each.

    One reads all members of the hour in question, the other the latest with its score: to write a score down
    takes Redis several times as long as the rest of a point does.
    """
    hours: list[int] = []
    commands: list[Command] = []
    for step, first, stop in window.cover(ROLLUP_STEPS_US, open_ended=open_ended):
        if step > 1:
            continue
        for raw in raw_ranges(first, stop):
            key, low, high = raw_bounds(metric_type, raw)
            hours.append(raw.hour)
            commands.append(("ZRANGEBYSCORE", key, low, high))
            commands.append(("ZREVRANGEBYSCORE", key, high, low, "WITHSCORES", "LIMIT", 0, 1))
    return hours, commands


def _rollup_commands(metric_type: str, window: Window, *, open_ended: bool) -> list[Command]:
    partitions: defaultdict[str, list[Argument]] = defaultdict(list)
    for step, first, stop in window.cover(ROLLUP_STEPS_US, open_ended=open_ended):
        if step > 1:
            for number in range(first, stop):
                partition, field, _ = rollup_place(step, number)
                partitions[partition].append(field)
    return [("HMGET", key_of(metric_type, partition), *fields) for partition, fields in partitions.items()]


def _sketch_commands(metric_type: str, window: Window, *, open_ended: bool) -> list[Command]:
    return [
        _sketch_command(metric_type, step, number)
        for step, first, stop in window.cover(SKETCH_STEPS_US, open_ended=open_ended)
        if step > 1
        for number in range(first, stop)
    ]


def _rollup(record: bytes | None) -> Rollup:
    return Rollup.empty() if record is None else Rollup.decode(record)


def _bins(replies: Iterable[Sequence[bytes]]) -> dict[int, int]:
    """Return the bins of sketches as HGETALL replies, all of them together."""
    flat = list(chain.from_iterable(replies))
    return bins_of(zip(flat[::2], flat[1::2], strict=True))


def _place(stored: StoredPoint) -> tuple[int, str, int]:
    return stored.point.timestamp_us, stored.point.type, stored.arrival
