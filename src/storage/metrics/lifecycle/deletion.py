"""Deletion of points from all data of a type. The result is exact.

A deletion proceeds hour by hour. Each commit is one script, which removes points from their strings, the
rollups, the sketches, the blocks of series and the indexes. Before and after a commit, all reads agree. An
interrupted deletion has removed the points of some hours, and a repeated one removes the rest. Hours that
lose all their points are committed in groups.

Rollups are merged again from the remaining data. Sketches are counts, and the counts of the removed points
are subtracted, which is exact for whole numbers. Writes may append to a sketch in the meantime, so the commit
replaces only the part of the sketch that was read.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from src.analytics.columns import POINT_BYTES, POINT_DTYPE
from src.analytics.rollup import Rollup
from src.analytics.sketch import BinCounts, decode_entries
from src.analytics.window import HOUR_US
from src.resilience.clock import Clock
from src.resilience.redis.port import Argument
from src.services.errors import StorageUnavailableError
from src.services.metrics.labels import LabelFilters, matches
from src.storage.metrics.layout import key_of
from src.storage.metrics.lifecycle.hour_change import HourChange, HourReader, SketchChange
from src.storage.metrics.lifecycle.lease import DeletionLease, DeletionLeases, LeaseLostError
from src.storage.metrics.lifecycle.removal import (
    Removal,
    added,
    counts_of_values,
    left_out_points,
    sketch_without,
)
from src.storage.metrics.lifecycle.series_cleanup import SeriesCleanup
from src.storage.metrics.readers.label_reader import LabelReader
from src.storage.metrics.readers.window_reader import Item, decode_items
from src.storage.metrics.series.series_dictionary import SeriesDictionary
from src.storage.metrics.series.series_folder import SeriesFolder
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

HOURS_AT_ONCE = 48
"""The largest number of hours that lose all their points in one commit."""
READINGS_AT_ONCE = 24
QUICK_ATTEMPTS = 3
"""The number of attempts for many hours at once, while writes change them."""
MAX_ATTEMPTS = 50
"""The number of attempts for the commit of one hour, while writes change its sketches."""

_COMMIT = storage_script("metrics/lifecycle/deletion_commit")
_READ = storage_script("metrics/readers/metrics_read")
_NOTHING = Item(0, b"", b"", b"")
_CHANGED, _LEASE_LOST, _EMPTY = 0, -1, 2


class PointDeleter:
    """Deletes points.

    Args:
        link: The link to Redis.
        clock: The clock for the wait for another deletion of the same type.
        folder: Adds points to blocks of series.
        labels: Counts the points of each series.
        dictionary: Returns the series dictionary of a type, in at least the given version.
    """

    def __init__(
        self,
        link: RedisLink,
        clock: Clock,
        folder: SeriesFolder,
        labels: LabelReader,
        dictionary: Callable[[str, str | None], Awaitable[SeriesDictionary]],
    ) -> None:
        self._link = link
        self._leases = DeletionLeases(link, clock)
        self._cleanup = SeriesCleanup(link, folder, labels)
        self._dictionary = dictionary

    async def delete(
        self, metric_type: str, filters: LabelFilters | None = None, before_us: int | None = None
    ) -> int:
        """Delete points of `metric_type`, and return their number.

        A point that is stored while the deletion runs is deleted or kept, and all reads agree about it.

        Args:
            metric_type: The type.
            filters: Delete the points of matching series only.
            before_us: Delete the points before this timestamp only, in µs since 1970.

        Raises:
            StorageUnavailableError: Redis is unavailable, or another deletion of the type takes too long.
                Some points may be deleted. A repeated deletion deletes the rest.
        """
        if not await self._link.send("EXISTS", key_of(metric_type, "d")):
            return 0
        async with self._leases.hold(metric_type) as lease:
            series = await self._series(metric_type, filters) if filters else None
            run = _Deletion(self._link, metric_type, Removal(series, before_us), lease)
            deleted = await run.delete()
            if not run.is_type_empty:
                await self._cleanup.run(metric_type, lease)
            return deleted

    async def _series(self, metric_type: str, filters: LabelFilters) -> np.ndarray:
        """Return for each number of a series whether the series matches."""
        version = await self._link.send("HGET", key_of(metric_type, "s"), "#")
        wanted = np.zeros(2**16, dtype=np.bool_)
        if version is not None:
            dictionary = await self._dictionary(metric_type, version.decode())
            for number, text in dictionary.series():
                wanted[number] = matches(filters, text)
        return wanted


class _Deletion:
    """One deletion, under its lease.

    Attributes:
        is_type_empty: Whether the type has no points left.
    """

    def __init__(self, link: RedisLink, metric_type: str, removal: Removal, lease: DeletionLease) -> None:
        self._link = link
        self._type = metric_type
        self._removal = removal
        self._lease = lease
        self._reader = HourReader(link, metric_type, removal, lease)
        self.is_type_empty = False

    async def delete(self) -> int:
        """Delete the points, and return their number."""
        before_us, deleted = self._removal.before_us, 0
        last = "+inf" if before_us is None else (before_us - 1) // HOUR_US
        found = await self._link.send("ZRANGEBYSCORE", key_of(self._type, "hours"), "-inf", last)
        hours = [int(hour) for hour in found]
        whole = hours if self._removal.series is None else []
        if before_us is not None:
            whole = [hour for hour in whole if (hour + 1) * HOUR_US <= before_us]
        for first in range(0, len(whole), HOURS_AT_ONCE):
            deleted += await self._drop(whole[first : first + HOURS_AT_ONCE])
        for hour in hours[len(whole) :]:
            deleted += await self._change(hour)
        return deleted

    async def _drop(self, hours: Sequence[int]) -> int:
        """Remove all points of `hours`, and return their number."""
        for _ in range(QUICK_ATTEMPTS):
            deleted = await self._try_to_drop(hours)
            if deleted is not None:
                return deleted
        if len(hours) == 1:
            return await self._change(hours[0])
        return sum([await self._drop([hour]) for hour in hours])

    async def _try_to_drop(self, hours: Sequence[int]) -> int | None:
        """Remove all points of `hours`. Return None if writes have changed the hours or their sketches."""
        records: list[bytes] = []
        counts = defaultdict[int, list[BinCounts]](list)
        for first in range(0, len(hours), READINGS_AT_ONCE):
            some = hours[first : first + READINGS_AT_ONCE]
            arguments: list[Argument] = [key_of(self._type, "")]
            for hour in some:
                arguments += (hour, 0, HOUR_US, "hour")
            replies = await self._link.run(_READ, [key_of(self._type, "d")], arguments)
            for hour, (_, *found) in zip(some, replies, strict=True):
                _, record, entries, points = next(decode_items(found), _NOTHING)
                records.append(record)
                counts[hour // 24] += (decode_entries(entries), counts_of_values(_values(points)))
        by_day = {day: added(*some) for day, some in counts.items()}
        sketches = [SketchChange(f"p:d:{day}", some) for day, some in by_day.items()]
        sketches.append(SketchChange("p:all", added(*by_day.values())))
        arguments = [len(hours)]
        for hour, record in zip(hours, records, strict=True):
            arguments += (hour, record)
        if not await self._commit(sketches, arguments):
            return None
        return sum(Rollup.from_records(record).count for record in records)

    async def _change(self, hour: int) -> int:
        """Remove the matching points of an hour, and return their number."""
        for _ in range(MAX_ATTEMPTS):
            change = await self._reader.read(hour)
            if change is None:
                return 0
            sketches, arguments = await asyncio.to_thread(_commit_of, change)
            for _ in range(QUICK_ATTEMPTS):
                if await self._commit(sketches, [0, *arguments]):
                    return change.removed
        raise StorageUnavailableError("the points of this type are changing too fast")

    async def _commit(self, sketches: Sequence[SketchChange], hours: Sequence[Argument]) -> bool:
        """Remove points in one step. Return False if the data has changed since it was read."""
        stored = await self._link.send_all(
            [("GET", key_of(self._type, sketch.suffix)) for sketch in sketches]
        )
        left_out = await self._link.send_all(
            [
                (
                    "GETRANGE",
                    key_of(self._type, sketch.points_suffix),
                    0,
                    left_out_points(value) * POINT_BYTES - 1,
                )
                for sketch, value in zip(sketches, stored, strict=True)
                if left_out_points(value)
            ]
        )
        changed = await asyncio.to_thread(_changed_sketches, sketches, stored, left_out)
        keys = ["types", self._lease.key]
        names = (self._type, key_of(self._type, ""))
        arguments = [*self._lease.arguments, *names, len(sketches), *changed, *hours]
        outcome = await self._link.run(_COMMIT, keys, arguments)
        if outcome == _LEASE_LOST:
            raise LeaseLostError
        self.is_type_empty = outcome == _EMPTY
        return bool(outcome != _CHANGED)


def _commit_of(change: HourChange) -> tuple[Sequence[SketchChange], Sequence[Argument]]:
    return change.sketches(), change.arguments()


def _changed_sketches(
    sketches: Sequence[SketchChange], stored: Sequence[bytes | None], left_out: Sequence[bytes]
) -> list[Argument]:
    """Return the key, the present value and the next value of each sketch."""
    points = iter(left_out)
    arguments: list[Argument] = []
    for sketch, value in zip(sketches, stored, strict=True):
        present = value or b""
        values = _values(next(points) if left_out_points(present) else b"")
        arguments += (sketch.suffix, present, sketch_without(present, values, sketch.removed))
    return arguments


def _values(points: bytes) -> np.ndarray:
    return np.ascontiguousarray(np.frombuffer(points, dtype=POINT_DTYPE)["value"])
