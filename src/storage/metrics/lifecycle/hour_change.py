"""What a deletion changes in an hour that keeps some of its points.

The strings of points are read piece by piece: they only grow while the deletion holds its lease. The points
that are kept are put aside in Redis, piece by piece too, and the commit replaces the strings by them. Points
that are added meanwhile stay behind them. The new block of series is made of all points that are kept.
"""

import asyncio
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
from src.storage.metrics.series_folder import decode_hour_block, encode_hour_block, version_of
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

POINTS_AT_ONCE: Final = 32_768
"""Points read, and put aside, in one round trip."""
STAGE_SECONDS: Final = 120
"""How long points that were put aside stay if the deletion ends before it uses them."""
BLOCKS_AT_ONCE: Final = 8

HEAD: Final = -1
"""The head of an hour, where its minutes are 0 to 59."""

_READ = storage_script("deletion_read")
_STAGE = storage_script("deletion_stage")


class SketchChange(NamedTuple):
    """What is removed from a sketch.

    Attributes:
        suffix: Its key within the type.
        removed: The counts by bin of the removed points.
        points_suffix: The key of the points of which the sketch leaves the first out; empty if it has all.
    """

    suffix: str
    removed: BinCounts
    points_suffix: str = ""


@dataclass(slots=True)
class PartChange:
    """What is removed from one string of points.

    Attributes:
        minute: Which string: a minute of the hour, or `HEAD`.
        length: Bytes that were read.
        rollup: The rollup of the points that are kept.
        kept: How many these are.
        removed: How many points are removed.
        counts: The counts by bin of the removed points.
    """

    minute: int
    length: int
    rollup: Rollup = field(default_factory=Rollup.empty)
    kept: int = 0
    removed: int = 0
    counts: BinCounts = NO_COUNTS

    def arguments(self) -> tuple[Argument, ...]:
        """Return the arguments of the commit."""
        return self.minute, self.length, self.kept * POINT_BYTES, encode_record(self.rollup)


@dataclass(slots=True)
class HourChange:
    """What is removed from one hour.

    Attributes:
        hour: Its number since 1970.
        version: The version of the hour's block of series that was read.
        head: The change of the head.
        minutes: The changes of the minutes.
        block: What is known of the kept points by series; None if the type has no labels.
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
        """How many points are removed."""
        return sum(part.removed for part in self.changed)

    @property
    def counts(self) -> BinCounts:
        """The counts by bin of the removed points."""
        return added(*(part.counts for part in self.changed))

    def sketches(self) -> list["SketchChange"]:
        """Return what is removed from each sketch."""
        day, counts = self.hour // 24, self.counts
        return [
            SketchChange(f"p:h:{self.hour}", counts, f"r:{self.hour}"),
            SketchChange(f"p:d:{day}", counts),
            SketchChange("p:all", counts),
            *(
                SketchChange(
                    f"p:m:{self.hour * 60 + part.minute}", part.counts, f"r:{self.hour}:{part.minute}"
                )
                for part in self.minutes
                if part.removed
            ),
        ]

    def arguments(self) -> list[Argument]:
        """Return the arguments of the commit."""
        covered = {part.minute: part.kept for part in (self.head, *self.minutes)}
        block = b""
        if self.block is not None:
            block = encode_hour_block(self.version + 1, covered, self.block)
        arguments: list[Argument] = [self.hour, self.version, block, sum(covered.values())]
        arguments += (self.head.length, encode_record(self.head.rollup), len(self.changed))
        for part in self.changed:
            arguments += part.arguments()
        return arguments


def encode_record(rollup: Rollup) -> bytes:
    """Return the record of a rollup; empty if it has no points."""
    return rollup.encode() if rollup.count else b""


class HourReader:
    """Reads the hours of one type, and puts aside what is kept of them.

    Args:
        link: To Redis.
        metric_type: The type.
        removal: Which points are removed.
        lease: The lease of the deletion.
    """

    def __init__(self, link: RedisLink, metric_type: str, removal: Removal, lease: DeletionLease) -> None:
        self._link = link
        self._type = metric_type
        self._removal = removal
        self._lease = lease

    async def read(self, hour: int) -> HourChange | None:
        """Return what is removed from an hour; None if nothing is.

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
        counts = np.frombuffer(records, dtype=RECORD_DTYPE)["count"].astype(np.int64).tolist()
        parts = [PartChange(HEAD, head_length)]
        parts += [PartChange(minute, count * POINT_BYTES) for minute, count in enumerate(counts) if count]
        blocks: list[SeriesBlock] | None = [] if is_labelled else None
        for part in parts:
            await self._read_part(hour, part, blocks)
        change = HourChange(hour, version_of(block), parts[0], parts[1:])
        if not change.changed:
            return None
        if blocks is not None:
            change.block = await asyncio.to_thread(SeriesBlock.merged, blocks)
        return change

    def _concerns(self, block: bytes) -> bool:
        """Return whether points may be removed from an hour, of whose points `block` has all."""
        series = self._removal.series
        return series is None or bool(series[decode_hour_block(block).series].any())

    async def _read_part(self, hour: int, part: PartChange, blocks: list[SeriesBlock] | None) -> None:
        """Read a string of points, put aside what is kept of it, and note that in `part` and `blocks`."""
        suffix = f"r:{hour}" if part.minute == HEAD else f"r:{hour}:{part.minute}"
        size = POINTS_AT_ONCE * POINT_BYTES
        for first in range(0, part.length, size):
            stop = min(first + size, part.length)
            points = await self._link.send("GETRANGE", key_of(self._type, suffix), first, stop - 1)
            before = part.kept
            kept = await asyncio.to_thread(self._sift, hour, points, part, blocks)
            # A string that is read in one piece is put aside only if it changes.
            if kept and (part.removed or part.length > size):
                await self._stage(part.minute, before * POINT_BYTES, kept)
            if blocks is not None and len(blocks) > BLOCKS_AT_ONCE:
                blocks[:] = [await asyncio.to_thread(SeriesBlock.merged, blocks)]

    def _sift(self, hour: int, points: bytes, part: PartChange, blocks: list[SeriesBlock] | None) -> bytes:
        """Return those of `points` that are kept, and add them to `part` and `blocks`."""
        table = np.frombuffer(points, dtype=POINT_DTYPE)
        removed = self._removal.mask(hour, table)
        part.counts = added(part.counts, counts_of_values(table["value"][removed]))
        part.removed += int(removed.sum())
        kept: npt.NDArray[np.void] = table[~removed]
        timestamps = kept["offset"].astype(np.int64) + hour * HOUR_US
        values = np.ascontiguousarray(kept["value"])
        part.rollup = Rollup.merged((part.rollup, Rollup.of_arrays(timestamps, values)))
        part.kept += len(kept)
        if blocks is not None:
            blocks.append(SeriesBlock.of_points(kept["series"], timestamps, values))
        return kept.tobytes()

    async def _stage(self, minute: int, place: int, points: bytes) -> None:
        keys = [self._lease.key, key_of(self._type, f"w:{minute}")]
        arguments = [*self._lease.arguments, place, points, STAGE_SECONDS]
        if not await self._link.run(_STAGE, keys, arguments):
            raise LeaseLostError
