"""Blocks of series: the rollups and sketches of all series of a type, for each hour and for all time.

A write only appends points with the numbers of their series. A worker folds the points into blocks later, in
a thread: after the end of an hour, or when an hour has many points that are in no block yet.
"""

import asyncio
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from src.analytics.columns import POINT_DTYPE
from src.analytics.rollup import Floats, Integers
from src.analytics.series_block import SeriesBlock
from src.analytics.window import HOUR_US
from src.resilience.redis.port import Argument, Reply
from src.services.errors import StorageUnavailableError
from src.storage.metrics.layout import key_of
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

_COVERAGE: Final = struct.Struct("<62I")
"""The version of an hour's block, and the number of points in it from the head and from each minute."""
_VERSION: Final = struct.Struct("<I")

FOLD_TIMEOUT_SECONDS = 5.0
POINTS_AT_ONCE = 100_000
"""The largest number of points in one fold. More points would block Redis for too long."""
MAX_FOLDS = 10_000
"""The largest number of folds of one hour while new points arrive."""

HOURS_AT_ONCE = 500
"""The number of hours that one run of the script registers for the first labels of a type."""


class SeriesPoints(NamedTuple):
    """Points of several series, in order of arrival within equal timestamps."""

    series: npt.NDArray[np.uint16]
    timestamps_us: Integers
    values: Floats

    def chosen(self, which: npt.NDArray[np.bool_] | Integers | slice) -> "SeriesPoints":
        """Return the points selected by a mask, a list of indexes or a slice."""
        return SeriesPoints(self.series[which], self.timestamps_us[which], self.values[which])


def decode_points(hour: int, reply: Sequence[Reply]) -> SeriesPoints:
    """Return the points of an hour from a reply of `points_of_hour` in `series_points.lua`."""
    table = np.frombuffer(b"".join((reply[0], *reply[2::2])), dtype=POINT_DTYPE)
    return SeriesPoints(table["series"], table["offset"].astype(np.int64) + hour * HOUR_US, table["value"])


def decode_hour_block(stored: bytes) -> SeriesBlock:
    """Return the block of series of an hour."""
    return SeriesBlock.decode(stored[_COVERAGE.size :])


def encode_hour_block(version: int, covered: Mapping[int, int], block: SeriesBlock) -> bytes:
    """Return the block of series of an hour.

    Args:
        version: The version of the block.
        covered: The number of points in the block by minute; minute -1 is the head.
        block: The rollups and sketches of these points.
    """
    numbers = [covered.get(minute, 0) for minute in range(-1, 60)]
    return _COVERAGE.pack(version, *numbers) + block.encode()


def decode_all_block(stored: bytes) -> SeriesBlock:
    """Return the block of series of all hours, which must be complete."""
    return SeriesBlock.decode(stored[_VERSION.size :])


def covered_points(stored: bytes) -> dict[int, int]:
    """Return the number of points by minute in the block of an hour; minute -1 is the head."""
    numbers = _COVERAGE.unpack_from(stored)[1:] if stored else (0,) * 61
    return dict(zip(range(-1, 60), numbers, strict=True))


def encode_all_block(version: int, block: SeriesBlock | None) -> bytes:
    """Return the stored form of the block of all hours. With None, a deletion must merge the block again."""
    return _VERSION.pack(version) + (b"" if block is None else block.encode())


def is_complete(stored_all: bytes) -> bool:
    """Return whether the block of all hours has the points of all blocks of hours.

    A deletion leaves only the version of the block, until the block is merged again from those of the hours.
    """
    return len(stored_all) != _VERSION.size


def version_of(stored: bytes) -> int:
    """Return the version of a block; 0 if there is none."""
    return int(_VERSION.unpack_from(stored)[0]) if stored else 0


def first_place(version: int) -> int:
    """Return the place of the first point that is new in version `version` of an hour's block."""
    return version << 32


class SeriesFolder:
    """Adds points to blocks of series, hour by hour, in the background.

    Args:
        link: The link to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._read = storage_script("metrics/series/series_fold_read")
        self._write = storage_script("metrics/series/series_fold")
        self._prepare = storage_script("metrics/series/series_prepare")
        self._waiting: dict[tuple[str, int], None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, reported: Sequence[Reply]) -> None:
        """Fold hours in the background. `reported` contains types and hours in turn.

        If Redis becomes unavailable, a later write reports the hours again.
        """
        for name, hour in _pairs(reported):
            self._waiting[name, hour] = None
        if self._waiting and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop. Waiting hours are not folded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def prepare(self, metric_type: str) -> None:
        """Prepare a type with many hours for its first labels, and fold these hours in the background.

        Raises:
            StorageUnavailableError: Redis is unavailable. The next call continues.
        """
        keys = [key_of(metric_type, "d")]
        arguments: list[Argument] = [key_of(metric_type, ""), HOURS_AT_ONCE]
        prepared: list[Reply] = []
        more = 1
        while more:
            more, *hours = await self._link.run(self._prepare, keys, arguments)
            prepared += hours
        self.add([part for hour in prepared for part in (metric_type.encode(), hour)])

    async def fold_all(self, metric_type: str) -> None:
        """Add the new points of all hours to their blocks.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        for hour in await self._link.send("HKEYS", key_of(metric_type, "u")):
            for _ in range(MAX_FOLDS):
                if await self.fold(metric_type, int(hour)):
                    break

    async def fold(self, metric_type: str, hour: int) -> bool:
        """Add new points of an hour to its block, at most `POINTS_AT_ONCE`.

        Return False if there are more points, or if another worker has folded the hour at the same time.
        """
        keys = [key_of(metric_type, suffix) for suffix in ("u", f"q:{hour}", "q:all", "d")]
        generation, block, all_block, points = await self._link.run(
            self._read,
            keys[:1],
            [key_of(metric_type, ""), hour, POINTS_AT_ONCE],
            timeout_seconds=FOLD_TIMEOUT_SECONDS,
        )
        head, *minutes = points
        if not head and not minutes:
            return True  # the points were folded or deleted in the meantime
        folded = await asyncio.to_thread(_fold, hour, block, all_block, points)
        arguments: list[Argument] = [hour, generation, *folded]
        is_done = await self._link.run(self._write, keys, arguments, timeout_seconds=FOLD_TIMEOUT_SECONDS)
        *_, count = folded
        return bool(is_done) and count < POINTS_AT_ONCE

    async def _run(self) -> None:
        try:
            while self._waiting:
                metric_type, hour = next(iter(self._waiting))
                del self._waiting[metric_type, hour]
                if not await self.fold(metric_type, hour):
                    self._waiting[metric_type, hour] = None
        except StorageUnavailableError:
            self._waiting.clear()
        finally:
            self._task = None


def _pairs(reported: Sequence[Reply]) -> Iterator[tuple[str, int]]:
    return ((name.decode(), hour) for name, hour in zip(reported[::2], reported[1::2], strict=True))


def _fold(
    hour: int, stored: bytes, stored_all: bytes, reply: Sequence[Reply]
) -> tuple[int, bytes, int, bytes, int]:
    """Return the version and the new block of the hour and of all hours, and the number of added points."""
    covered = np.zeros(62, dtype="<u4")
    if stored:
        covered[:] = _COVERAGE.unpack_from(stored)
    version = int(covered[0])
    version_of_all = version_of(stored_all)
    points = decode_points(hour, reply)
    covered[0] += 1
    covered[1] += len(reply[0]) // POINT_DTYPE.itemsize
    for minute, some in zip(reply[1::2], reply[2::2], strict=True):
        covered[2 + minute] += len(some) // POINT_DTYPE.itemsize
    new = SeriesBlock.from_points(*points, first_place=first_place(version + 1))
    block = SeriesBlock.merge((decode_hour_block(stored), new))
    all_block = None
    if is_complete(stored_all):
        all_block = SeriesBlock.merge((decode_all_block(stored_all), new))
    return (
        version,
        covered.tobytes() + block.encode(),
        version_of_all,
        encode_all_block(version_of_all + 1, all_block),
        len(points.values),
    )
