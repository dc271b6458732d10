"""The changes of a deletion in an hour that keeps some of its points.

The strings of points are read in pieces, since they only grow while the deletion holds its lease. The kept
points are staged in Redis, also in pieces, and the commit replaces the strings by them. Points that are added
during this time follow the staged points. The removed series are removed from the block of series. If a part
of the hour is removed by time, the block is built again from all kept points.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from src.analytics.columns import POINT_BYTES, POINT_DTYPE
from src.analytics.rollup import RECORD_DTYPE, Rollup
from src.analytics.series_block import SeriesBlock
from src.analytics.sketch import BinCounts
from src.analytics.window import HOUR_US
from src.resilience.redis.port import Argument
from src.storage.metrics.layout import key_of
from src.storage.metrics.lifecycle.lease import DeletionLease, LeaseLostError
from src.storage.metrics.lifecycle.removal import NO_COUNTS, Removal, added, counts_of_values
from src.storage.metrics.series.series_folder import (
    covered_points,
    decode_hour_block,
    encode_hour_block,
    first_place,
    version_of,
)
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

POINTS_AT_ONCE: Final = 32_768
"""The number of points that are read or staged in one round trip."""
STAGE_SECONDS: Final = 120
"""The time after which staged points expire if the deletion ends before it uses them."""

HEAD: Final = -1
"""The number of the head of an hour. Its minutes have the numbers 0 to 59."""

_READ = storage_script("metrics/lifecycle/deletion_read")
_STAGE = storage_script("metrics/lifecycle/deletion_stage")


class SketchChange(NamedTuple):
    """The change of a sketch.

    Attributes:
        suffix: The key of the sketch within the type.
        removed: The counts by bin of the removed points.
        points_suffix: The key of the points whose first ones are not in the sketch; empty if all are.
    """

    suffix: str
    removed: BinCounts
    points_suffix: str = ""


@dataclass(slots=True)
class PartChange:
    """The change of one string of points.

    Attributes:
        minute: The minute of the hour, or `HEAD`.
        length: The number of bytes that were read.
        folded: The number of its first points that are in the hour's block of series.
        rollup: The rollup of the kept points.
        kept: The number of kept points.
        kept_folded: The number of kept points that are in the block of series.
        removed: The number of removed points.
        counts: The counts by bin of the removed points.
    """

    minute: int
    length: int
    folded: int
    rollup: Rollup = field(default_factory=Rollup.empty)
    kept: int = 0
    kept_folded: int = 0
    removed: int = 0
    counts: BinCounts = NO_COUNTS

    def arguments(self) -> tuple[Argument, ...]:
        """Return the arguments of the commit."""
        return self.minute, self.length, self.kept * POINT_BYTES, encode_record(self.rollup)


@dataclass(slots=True)
class HourChange:
    """The change of one hour.

    Attributes:
        hour: The number of the hour since 1970.
        version: The version of the hour's block of series that was read.
        head: The change of the head.
        minutes: The changes of the minutes.
        block: The hour's block of series without the removed points; None if the type has no labels.
    """

    hour: int
    version: int
    head: PartChange
    minutes: list[PartChange] = field(default_factory=list)
    block: SeriesBlock | None = None

    @property
    def changed(self) -> list[PartChange]:
        """The strings that lose points."""
        return [part for part in (self.head, *self.minutes) if part.removed]

    @property
    def removed(self) -> int:
        """The number of removed points."""
        return sum(part.removed for part in self.changed)

    @property
    def counts(self) -> BinCounts:
        """The counts by bin of the removed points."""
        return added(*(part.counts for part in self.changed))

    def sketches(self) -> list["SketchChange"]:
        """Return the change of each sketch."""
        day, counts = self.hour // 24, self.counts
        return [
            SketchChange(f"p:h:{self.hour}", counts, f"r:{self.hour}"),
            SketchChange(f"p:d:{day}", counts),
            SketchChange("p:all", counts),
            *(
                SketchChange(
                    f"p:m:{self.hour * 60 + part.minute}", part.counts, _suffix(self.hour, part.minute)
                )
                for part in self.minutes
                if part.removed
            ),
        ]

    def arguments(self) -> list[Argument]:
        """Return the arguments of the commit."""
        folded = {part.minute: part.kept_folded for part in (self.head, *self.minutes)}
        block = b""
        if self.block is not None:
            block = encode_hour_block(self.version + 1, folded, self.block)
        arguments: list[Argument] = [self.hour, self.version, block, sum(folded.values())]
        arguments += (self.head.length, encode_record(self.head.rollup), len(self.changed))
        for part in self.changed:
            arguments += part.arguments()
        return arguments


def encode_record(rollup: Rollup) -> bytes:
    """Return the record of a rollup; empty if it has no points."""
    return rollup.encode() if rollup.count else b""


class HourReader:
    """Reads the hours of one type, and stages their kept points.

    Args:
        link: The link to Redis.
        metric_type: The type.
        removal: The removed points.
        lease: The lease of the deletion.
    """

    def __init__(self, link: RedisLink, metric_type: str, removal: Removal, lease: DeletionLease) -> None:
        self._link = link
        self._type = metric_type
        self._removal = removal
        self._lease = lease

    async def read(self, hour: int) -> HourChange | None:
        """Return the change of an hour, or None if no point is removed.

        Raises:
            StorageUnavailableError: Redis is unavailable, or the lease is lost.
        """
        arguments = [*self._lease.arguments, key_of(self._type, ""), hour]
        reply = await self._link.run(_READ, [self._lease.key], arguments)
        if not reply:
            raise LeaseLostError
        is_labelled, head_length, records, unfolded, block = reply
        if not unfolded and block and not await asyncio.to_thread(self._concerns, block):
            return None
        folded = covered_points(block)
        counts = np.frombuffer(records, dtype=RECORD_DTYPE)["count"].astype(np.int64).tolist()
        parts = [PartChange(HEAD, head_length, folded[HEAD])]
        parts += [
            PartChange(minute, count * POINT_BYTES, folded[minute])
            for minute, count in enumerate(counts)
            if count
        ]
        version = version_of(block)
        rebuilt = _RebuiltBlock(first_place(version + 1)) if is_labelled and self._is_cut(hour) else None
        for pieces in _pieces(parts):
            await self._read_pieces(hour, pieces, rebuilt)
        change = HourChange(hour, version, parts[0], parts[1:])
        if not change.changed:
            return None
        if is_labelled:
            change.block = await asyncio.to_thread(self._block, block, rebuilt)
        return change

    def _concerns(self, block: bytes) -> bool:
        """Return whether points may be removed from an hour whose points are all in `block`."""
        series = self._removal.series
        return series is None or bool(series[decode_hour_block(block).series].any())

    def _is_cut(self, hour: int) -> bool:
        """Return whether a series may keep some of its points of an hour and lose others."""
        before_us = self._removal.before_us
        return before_us is not None and before_us < (hour + 1) * HOUR_US

    def _block(self, block: bytes, rebuilt: "_RebuiltBlock | None") -> SeriesBlock:
        """Return the block of the kept points: the rebuilt block, or the stored block without some series."""
        if rebuilt is not None:
            return rebuilt.block
        if self._removal.series is None:
            return SeriesBlock.empty()
        return decode_hour_block(block).select(~self._removal.series)

    async def _read_pieces(
        self, hour: int, pieces: Sequence["_Piece"], rebuilt: "_RebuiltBlock | None"
    ) -> None:
        """Read pieces of strings, stage their kept points, and add these to their parts and `rebuilt`."""
        read = await self._link.send_all(
            [
                ("GETRANGE", key_of(self._type, _suffix(hour, part.minute)), first, stop - 1)
                for part, first, stop in pieces
            ]
        )
        kept = await asyncio.to_thread(self._sift_all, hour, pieces, read, rebuilt)
        await asyncio.gather(
            *(
                self._stage(part.minute, part.kept * POINT_BYTES - len(points), points)
                for (part, first, stop), points in zip(pieces, kept, strict=True)
                # A string that is read in one piece is staged only if it changes.
                if points and (part.removed or stop - first < part.length)
            )
        )

    def _sift_all(
        self,
        hour: int,
        pieces: Sequence["_Piece"],
        read: Sequence[bytes],
        rebuilt: "_RebuiltBlock | None",
    ) -> list[bytes]:
        """Return the kept points of each piece, and add them to their parts and `rebuilt`."""
        kept = [self._sift(hour, piece, points) for piece, points in zip(pieces, read, strict=True)]
        if rebuilt is not None:
            rebuilt.add(hour, np.frombuffer(b"".join(kept), dtype=POINT_DTYPE))
            for part, _, _ in pieces:
                part.kept_folded = part.kept
        return kept

    def _sift(self, hour: int, piece: "_Piece", points: bytes) -> bytes:
        """Return the kept points of a piece, and add them to its part."""
        part, first, _ = piece
        table = np.frombuffer(points, dtype=POINT_DTYPE)
        removed = self._removal.mask(hour, table)
        count = int(removed.sum())
        if count:
            part.removed += count
            part.counts = added(part.counts, counts_of_values(table["value"][removed]))
            table = table[~removed]
        part.kept += len(table)
        folded = min(max(part.folded - first // POINT_BYTES, 0), len(removed))
        part.kept_folded += folded - int(removed[:folded].sum())
        # Of unchanged strings, the commit needs only the rollup of the head.
        if part.removed or part.minute == HEAD or len(points) < part.length:
            timestamps = table["offset"].astype(np.int64) + hour * HOUR_US
            values = np.ascontiguousarray(table["value"])
            part.rollup = Rollup.merge((part.rollup, Rollup.from_arrays(timestamps, values)))
        return table.tobytes() if count else points

    async def _stage(self, minute: int, place: int, points: bytes) -> None:
        keys = [self._lease.key, key_of(self._type, f"w:{minute}")]
        arguments = [*self._lease.arguments, place, points, STAGE_SECONDS]
        if not await self._link.run(_STAGE, keys, arguments):
            raise LeaseLostError


@dataclass(slots=True)
class _RebuiltBlock:
    """A block of series that is built from all kept points of an hour.

    Attributes:
        next_place: The place of the next point.
        block: The block of the points so far.
    """

    next_place: int
    block: SeriesBlock = field(default_factory=SeriesBlock.empty)

    def add(self, hour: int, points: npt.NDArray[np.void]) -> None:
        """Add points of the hour, given as `POINT_DTYPE`, in order of arrival within equal timestamps."""
        timestamps = points["offset"].astype(np.int64) + hour * HOUR_US
        values = np.ascontiguousarray(points["value"])
        new = SeriesBlock.from_points(points["series"], timestamps, values, self.next_place)
        self.block = SeriesBlock.merge((self.block, new))
        self.next_place += len(points)


class _Piece(NamedTuple):
    """The bytes from `first` to before `stop` of a string of points."""

    part: PartChange
    first: int
    stop: int


def _pieces(parts: Sequence[PartChange]) -> Iterator[list[_Piece]]:
    """Yield lists of pieces of all `parts`, each list of at most `POINTS_AT_ONCE` points."""
    size = POINTS_AT_ONCE * POINT_BYTES
    pieces: list[_Piece] = []
    room = size
    for part in parts:
        for first in range(0, part.length, size):
            piece = _Piece(part, first, min(first + size, part.length))
            if pieces and piece.stop - first > room:
                yield pieces
                pieces, room = [], size
            pieces.append(piece)
            room -= piece.stop - first
    if pieces:
        yield pieces


def _suffix(hour: int, minute: int) -> str:
    return f"r:{hour}" if minute == HEAD else f"r:{hour}:{minute}"
