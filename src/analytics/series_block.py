"""The rollups and sketches of many series as columns, for summaries by labels."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from src.analytics.exact_sums import sum_groups
from src.analytics.rollup import RECORD_DTYPE, Floats, Integers, Rollup
from src.analytics.sketch import LogBinSketch, decode_cells, encode_cells, find_bins, sum_cells
from src.analytics.window import HOUR_US

_HEAD: Final = struct.Struct("<II")

SERIES_RECORD_DTYPE = np.dtype([*RECORD_DTYPE.descr, ("latest_place", "<i8")])
"""A rollup, and the place of its latest point in the order of arrival within the hour."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesBlock:
    """The rollups and sketches of several series. A cell is a bin of a sketch with its count.

    Attributes:
        series: int64, the numbers of the series, ascending and distinct.
        records: The rollup of each series, as `SERIES_RECORD_DTYPE`.
        cell_series: int64, the index in `series` of each cell's series, ascending.
        cell_bins: int64, the bin of each cell.
        cell_counts: int64, the count of each cell.
    """

    series: Integers
    records: npt.NDArray[np.void]
    cell_series: Integers
    cell_bins: Integers
    cell_counts: Integers

    @classmethod
    def empty(cls) -> "SeriesBlock":
        """Return a block without points."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, np.empty(0, dtype=SERIES_RECORD_DTYPE), nothing, nothing, nothing)

    @classmethod
    def from_points(
        cls,
        series: npt.NDArray[np.integer[Any]],
        timestamps_us: Integers,
        values: Floats,
        first_place: int = 0,
    ) -> "SeriesBlock":
        """Return the block of points of an hour, in order of arrival within equal timestamps.

        Args:
            series: The number of each point's series.
            timestamps_us: int64, microseconds since 1970.
            values: float64, finite.
            first_place: The place of the first point. It is greater than those of the points of the same hour
                that arrived before.
        """
        if not len(series):
            return cls.empty()
        order = np.lexsort((timestamps_us, series))  # stable: equal timestamps stay in order of arrival
        series, timestamps_us, values = series[order], timestamps_us[order], values[order]
        starts = np.flatnonzero(np.diff(series.astype(np.int64), prepend=-1))
        ends = np.append(starts[1:], len(series)) - 1
        records = np.empty(len(starts), dtype=SERIES_RECORD_DTYPE)
        records["count"] = np.diff(np.append(starts, len(series)))
        records["sum"], records["compensation"] = sum_groups(values, starts)
        records["minimum"], records["maximum"] = (
            np.minimum.reduceat(values, starts),
            np.maximum.reduceat(values, starts),
        )
        records["latest_value"] = values[ends]
        records["latest_hour"], records["latest_offset"] = np.divmod(timestamps_us[ends], HOUR_US)
        records["latest_place"] = first_place + order[ends]
        owners = np.repeat(np.arange(len(starts)), records["count"].astype(np.int64))
        cells = sum_cells(owners, find_bins(values), np.ones(len(values), dtype=np.int64), len(starts))
        return cls(series[starts].astype(np.int64), records, *cells)

    @classmethod
    def merge(cls, blocks: Sequence["SeriesBlock"]) -> "SeriesBlock":
        """Return the block of all points of `blocks`."""
        blocks = [block for block in blocks if len(block.series)]
        if len(blocks) < 2:
            return blocks[0] if blocks else cls.empty()
        numbers = np.concatenate([block.series for block in blocks])
        series, owners = np.unique(numbers, return_inverse=True)
        return cls._sum(blocks, series, owners)

    @classmethod
    def _sum(cls, blocks: Sequence["SeriesBlock"], series: Integers, owners: Integers) -> "SeriesBlock":
        """Return the sum of `blocks`. `owners` has the index in `series` of each record of the blocks."""
        records = np.concatenate([block.records for block in blocks])
        offsets = np.cumsum([0, *(len(block.series) for block in blocks[:-1])])
        cell_owners = owners[
            np.concatenate(
                [block.cell_series + offset for block, offset in zip(blocks, offsets, strict=True)]
            )
        ]
        cells = sum_cells(
            cell_owners,
            np.concatenate([block.cell_bins for block in blocks]),
            np.concatenate([block.cell_counts for block in blocks]),
            len(series),
        )
        return cls(series, _sum_records(records, owners, len(series)), *cells)

    def select(self, wanted: npt.NDArray[np.bool_]) -> "SeriesBlock":
        """Return the block of the selected series. `wanted` has a boolean for each series number."""
        kept = wanted[self.series]
        if kept.all():
            return self
        indexes = np.cumsum(kept) - 1
        cells = kept[self.cell_series]
        return SeriesBlock(
            self.series[kept],
            self.records[kept],
            indexes[self.cell_series[cells]],
            self.cell_bins[cells],
            self.cell_counts[cells],
        )

    def shift_numbers(self, distance: int) -> "SeriesBlock":
        """Return the same block with series numbers that are greater by `distance`."""
        return replace(self, series=self.series + distance)

    def group(self, groups: Integers) -> "SeriesBlock":
        """Return a block with one series for each group. `groups` has the group of each series number."""
        numbers = groups[self.series]
        if (np.diff(numbers) > 0).all():  # a group for each series, in the same order: nothing to add up
            return replace(self, series=numbers)
        numbers, owners = np.unique(numbers, return_inverse=True)
        return self._sum([self], numbers, owners)

    def aggregates(self) -> Iterator[tuple[int, Rollup, LogBinSketch]]:
        """Yield the number, the rollup and the sketch of each series."""
        bounds = np.searchsorted(self.cell_series, np.arange(len(self.series) + 1)).tolist()
        cells = map(slice, bounds, bounds[1:])
        for number, rollup, some in zip(self.series.tolist(), Rollup.each(self.records), cells, strict=True):
            sketch = LogBinSketch(
                self.cell_bins[some], self.cell_counts[some], rollup.minimum, rollup.maximum
            )
            yield number, rollup, sketch

    def encode(self) -> bytes:
        """Return the block as bytes."""
        entries, sizes = encode_cells(self.cell_series, self.cell_bins, self.cell_counts, len(self.series))
        return b"".join(
            (
                _HEAD.pack(len(self.series), len(entries)),
                self.series.astype("<u2").tobytes(),
                self.records.tobytes(),
                sizes.astype("<u4").tobytes(),
                entries.tobytes(),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "SeriesBlock":
        """Return the block that `encode` wrote."""
        if not data:
            return cls.empty()
        count, size = _HEAD.unpack_from(data)
        offset = _HEAD.size
        series = np.frombuffer(data, "<u2", count, offset).astype(np.int64)
        offset += 2 * count
        records = np.frombuffer(data, SERIES_RECORD_DTYPE, count, offset)
        offset += SERIES_RECORD_DTYPE.itemsize * count
        sizes = np.frombuffer(data, "<u4", count, offset)
        offset += 4 * count
        return cls(series, records, *decode_cells(data[offset : offset + 4 * size], sizes))


def _sum_records(records: npt.NDArray[np.void], owners: Integers, size: int) -> npt.NDArray[np.void]:
    """Return the sum of the records of each of `size` owners."""
    times = records["latest_hour"].astype(np.int64) * HOUR_US + records["latest_offset"]
    order = np.lexsort((records["latest_place"], times, owners))
    records, owners = records[order], owners[order]
    starts = np.searchsorted(owners, np.arange(size))
    ends = np.append(starts[1:], len(owners)) - 1
    sums: npt.NDArray[np.void] = records[ends].copy()  # has the latest point of each owner
    sums["count"] = np.add.reduceat(records["count"], starts)
    terms = np.stack((records["sum"], records["compensation"]), axis=1).ravel()
    sums["sum"], sums["compensation"] = sum_groups(terms, 2 * starts)
    sums["minimum"] = np.minimum.reduceat(records["minimum"], starts)
    sums["maximum"] = np.maximum.reduceat(records["maximum"], starts)
    return sums
