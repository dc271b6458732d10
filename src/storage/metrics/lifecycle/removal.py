"""Which points a deletion removes, and what a sketch is without them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.analytics.sketch import BinCounts, decode_entries, encode_counts, find_bins, subtract, sum_by_bin
from src.analytics.window import HOUR_US
from src.storage.metrics.layout import SKETCH_HEADER

NO_COUNTS: BinCounts = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class Removal(NamedTuple):
    """Which points of a type are removed.

    Attributes:
        series: Whether points of each series are, by its number; None for all series.
        before_us: The timestamp in µs since 1970 before which they are; None for all times.
    """

    series: npt.NDArray[np.bool_] | None
    before_us: int | None

    def mask(self, hour: int, table: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Return which points of an hour are removed, given as `POINT_DTYPE`."""
        removed = np.ones(len(table), dtype=np.bool_) if self.series is None else self.series[table["series"]]
        if self.before_us is not None:
            removed &= table["offset"].astype(np.int64) < self.before_us - hour * HOUR_US
        return removed


def counts_of_values(values: npt.NDArray[np.float64]) -> BinCounts:
    """Return the counts by bin of values."""
    bins = find_bins(values)
    return sum_by_bin(bins, np.ones_like(bins))


def counts_of_sketch(sketch: bytes) -> BinCounts:
    """Return the counts by bin of a stored sketch, without the points that it leaves out."""
    return decode_entries(sketch[SKETCH_HEADER.size :])


def left_out_points(sketch: bytes | None) -> int:
    """Return how many of the bucket's first points a stored sketch leaves out."""
    return int(SKETCH_HEADER.unpack_from(sketch)[0]) if sketch else 0


def added(*counts: BinCounts) -> BinCounts:
    """Return the sum of counts by bin."""
    bins, numbers = zip(*counts, strict=True)
    return sum_by_bin(np.concatenate(bins), np.concatenate(numbers))


def sketch_without(sketch: bytes, left_out: npt.NDArray[np.float64], removed: BinCounts) -> bytes:
    """Return a stored sketch without the `removed` points. It leaves no points out.

    Args:
        sketch: What is stored; empty if there is no sketch.
        left_out: The values of the points that the sketch leaves out.
        removed: The counts of the points that are removed.
    """
    if not sketch:
        return b""
    entries = encode_counts(*subtract(added(counts_of_sketch(sketch), counts_of_values(left_out)), removed))
    return SKETCH_HEADER.pack(0, len(entries)) + entries
