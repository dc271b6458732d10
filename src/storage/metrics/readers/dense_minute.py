"""Reads a minute with many points in order of time, with bounded memory.

The points of a minute are stored in order of arrival. To sort all of them at once would need memory for all
of them, so they are read in several passes. Each pass keeps the earliest points that no earlier pass has
returned. Points arrive roughly in order of time, so most pieces of the minute are needed by one pass only.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from src.analytics.columns import POINT_BYTES, POINT_DTYPE, SeriesNumbers
from src.analytics.rollup import Floats
from src.storage.metrics.layout import HEAD_POINTS

PIECE_POINTS = 16_384
"""The number of points that are read in one round trip."""

LEAST_KEPT = 65_536
"""The smallest number of points that a pass returns."""

MAX_PASSES = 32
"""The largest number of passes over a minute. A minute with very many points needs more memory instead."""

PLACE_BITS = 32
"""The number of lower bits of a key for the place of the point in the order of arrival."""


class KeyedPoints(NamedTuple):
    """Points of one hour.

    Attributes:
        keys: The µs within the hour and, in the lower `PLACE_BITS` bits, the place in the order of arrival.
        values: The values.
        series: The numbers of their series.
    """

    keys: npt.NDArray[np.uint64]
    values: Floats
    series: SeriesNumbers

    @classmethod
    def decode(cls, points: bytes, first_place: int) -> "KeyedPoints":
        """Return stored points, of which the first has `first_place`."""
        table = np.frombuffer(points, dtype=POINT_DTYPE)
        places = np.arange(first_place, first_place + len(table), dtype=np.uint64)
        return cls(
            table["offset"].astype(np.uint64) << np.uint64(PLACE_BITS) | places,
            table["value"],
            table["series"],
        )

    def chosen(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "KeyedPoints":
        """Return the points that a mask or a list of indexes chooses."""
        return KeyedPoints(self.keys[which], self.values[which], self.series[which])

    def between(self, first: int, stop: int) -> "KeyedPoints":
        """Return the points with keys from `first` up to and without `stop`."""
        return self.chosen((self.keys >= np.uint64(first)) & (self.keys < np.uint64(stop)))

    def sorted(self) -> "KeyedPoints":
        """Return the points by key."""
        return self.chosen(np.argsort(self.keys))


class MinuteRewrittenError(Exception):
    """Points of a minute were deleted, or have expired, while the minute was read."""


class MinuteSource(Protocol):
    """The stored points of a minute outside the head of its hour."""

    async def read(self, first: int, stop: int) -> bytes:
        """Return the points from one index up to and without another, as many as there are."""
        ...

    async def is_unchanged(self) -> bool:
        """Return whether no point has changed its place since the number of points was read."""
        ...


@dataclass(slots=True)
class _Piece:
    """Points of a minute that are read together; `low` and `high` are bounds of their keys."""

    first: int
    stop: int
    low: int = 0
    high: int = 2**64
    checksum: int | None = None

    def decode(self, points: bytes) -> KeyedPoints:
        """Return the points, and note what they are.

        Raises:
            MinuteRewrittenError: They are not what they were.
        """
        checksum = zlib.crc32(points)
        if len(points) != (self.stop - self.first) * POINT_BYTES or self.checksum not in {None, checksum}:
            raise MinuteRewrittenError
        decoded = KeyedPoints.decode(points, HEAD_POINTS + self.first)
        self.low, self.high, self.checksum = int(decoded.keys.min()), int(decoded.keys.max()), checksum
        return decoded


async def read_dense_minute(
    source: MinuteSource, head: bytes, count: int, first_us: int, stop_us: int
) -> AsyncIterator[KeyedPoints]:
    """Yield points of a minute by time, then by arrival.

    Args:
        source: The stored points of the minute outside the head.
        head: The head of the hour.
        count: Number of points of the minute outside the head.
        first_us: The first instant, in µs within the hour.
        stop_us: The instant after the last.

    Raises:
        MinuteRewrittenError: Points of the minute were deleted, or have expired. What was yielded before is
            right.
    """
    pieces = [_Piece(first, min(first + PIECE_POINTS, count)) for first in range(0, count, PIECE_POINTS)]
    kept = max(LEAST_KEPT, count // MAX_PASSES)
    first_key, end = first_us << PLACE_BITS, stop_us << PLACE_BITS
    while first_key < end:
        stop_key = end
        found = [KeyedPoints.decode(head, 0).between(first_key, stop_key)]
        for piece in pieces:
            if piece.high < first_key or piece.low >= stop_key:
                continue
            points = piece.decode(await source.read(piece.first, piece.stop))
            found.append(points.between(first_key, stop_key))
            if sum(len(some.keys) for some in found) > 2 * kept:
                smallest = await asyncio.to_thread(_smallest, found, kept)
                found, stop_key = [smallest], int(smallest.keys.max()) + 1
        if first_key == first_us << PLACE_BITS and not await source.is_unchanged():  # each piece was read
            raise MinuteRewrittenError
        yield await asyncio.to_thread(_joined(found).sorted)
        first_key = stop_key


def _joined(parts: list[KeyedPoints]) -> KeyedPoints:
    return KeyedPoints(*map(np.concatenate, zip(*parts, strict=True)))


def _smallest(parts: list[KeyedPoints], count: int) -> KeyedPoints:
    points = _joined(parts)
    return points.chosen(np.argpartition(points.keys, count - 1)[:count])
