"""Blocks of series: the rollups and sketches of all series of a type, hour by hour and for all time.

A write only appends points, with the number of the series of each. Their sums by series are added up later,
in a worker's thread: once an hour is over, or has many points that no block has yet.
"""

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from src.analytics.columns import POINT_DTYPE
from src.analytics.rollup import Floats, Integers
from src.analytics.series_block import SeriesBlock
from src.analytics.window import HOUR_US
from src.resilience.redis.port import Argument, Reply
from src.resilience.redis.scripts import SERVER_TIME
from src.services.errors import StorageUnavailableError
from src.storage.metrics.layout import key_of
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

_COVERAGE: Final = struct.Struct("<62I")
"""Version of a block of an hour, and how many points it has of the head and of each minute."""
_VERSION: Final = struct.Struct("<I")

FOLD_TIMEOUT_SECONDS = 5.0


class SeriesPoints(NamedTuple):
    """Points of several series, in order of arrival within equal timestamps."""

    series: npt.NDArray[np.uint16]
    timestamps_us: Integers
    values: Floats

    def chosen(self, which: npt.NDArray[np.bool_] | Integers | slice) -> "SeriesPoints":
        """Return the points that a mask, a list of indexes or a slice chooses."""
        return SeriesPoints(self.series[which], self.timestamps_us[which], self.values[which])


def decode_points(hour: int, reply: Sequence[Reply]) -> SeriesPoints:
    """Return the points of an hour as `points_of_hour` in `series_points.lua` returns them."""
    table = np.frombuffer(b"".join((reply[0], *reply[2::2])), dtype=POINT_DTYPE)
    return SeriesPoints(table["series"], table["offset"].astype(np.int64) + hour * HOUR_US, table["value"])


def decode_hour_block(stored: bytes) -> SeriesBlock:
    """Return the block of series of an hour."""
    return SeriesBlock.decode(stored[_COVERAGE.size :])


def decode_all_block(stored: bytes) -> SeriesBlock:
    """Return the block of series of all hours."""
    return SeriesBlock.decode(stored[_VERSION.size :])


class SeriesFolder:
    """Adds points to blocks of series, hour by hour, in the background.

    Args:
        link: To Redis.
        retention_seconds: How long blocks of hours are kept after their end; 0 is for ever.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(self, link: RedisLink, retention_seconds: int, *, time_source: str = SERVER_TIME) -> None:
        self._link = link
        self._retention_seconds = retention_seconds
        self._read = storage_script("series_fold_read")
        self._write = storage_script("series_fold", time_source=time_source)
        self._waiting: dict[tuple[str, int], None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, reported: Sequence[Reply]) -> None:
        """Fold hours, given as type and hour by turns, soon.

        If Redis is unavailable meanwhile, a later write reports them again.
        """
        for name, hour in _pairs(reported):
            self._waiting[name, hour] = None
        if self._waiting and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop, without what is still waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def fold(self, metric_type: str, hour: int) -> bool:
        """Add the new points of an hour to its block. Return False if another worker did so meanwhile."""
        keys = [key_of(metric_type, suffix) for suffix in ("u", f"q:{hour}", "q:all")]
        block, all_block, points = await self._link.run(
            self._read, keys[:1], [key_of(metric_type, ""), hour], timeout_seconds=FOLD_TIMEOUT_SECONDS
        )
        folded = await asyncio.to_thread(_fold, hour, block, all_block, points)
        arguments: list[Argument] = [hour, *folded, self._retention_seconds]
        return bool(await self._link.run(self._write, keys, arguments, timeout_seconds=FOLD_TIMEOUT_SECONDS))

    async def _run(self) -> None:
        try:
            while self._waiting:
                metric_type, hour = next(iter(self._waiting))
                del self._waiting[metric_type, hour]
                await self.fold(metric_type, hour)
        except StorageUnavailableError:
            self._waiting.clear()
        finally:
            self._task = None


def _pairs(reported: Sequence[Reply]) -> Iterator[tuple[str, int]]:
    return ((name.decode(), hour) for name, hour in zip(reported[::2], reported[1::2], strict=True))


def _fold(
    hour: int, stored: bytes, stored_all: bytes, reply: Sequence[Reply]
) -> tuple[int, bytes, int, bytes, int]:
    """Return version and new block of the hour and of all hours, and the number of points added."""
    covered = np.zeros(62, dtype="<u4")
    if stored:
        covered[:] = _COVERAGE.unpack_from(stored)
    version = int(covered[0])
    (version_of_all,) = _VERSION.unpack_from(stored_all) if stored_all else (0,)
    points = decode_points(hour, reply)
    covered[0] += 1
    covered[1] += len(reply[0]) // POINT_DTYPE.itemsize
    for minute, some in zip(reply[1::2], reply[2::2], strict=True):
        covered[2 + minute] += len(some) // POINT_DTYPE.itemsize
    new = SeriesBlock.from_points(*points)
    block = SeriesBlock.merge((decode_hour_block(stored), new))
    all_block = SeriesBlock.merge((decode_all_block(stored_all), new))
    return (
        version,
        covered.tobytes() + block.encode(),
        version_of_all,
        _VERSION.pack(version_of_all + 1) + all_block.encode(),
        len(points.values),
    )
