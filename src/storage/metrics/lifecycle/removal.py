"""The points that a deletion removes, and sketches without these points."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.analytics.sketch import BinCounts, decode_entries, encode_counts, find_bins, subtract, sum_by_bin
from src.analytics.window import HOUR_US
from src.storage.metrics.layout import SKETCH_HEADER

NO_COUNTS: BinCounts = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class Removal(NamedTuple):
    """The condition for the removal of points of a type.

    Attributes:
        series: For each number of a series, whether its points are removed; None for all series.
        before_us: Only points before this timestamp in µs since 1970 are removed; None for all times.
    """

    series: npt.NDArray[np.bool_] | None
    before_us: int | None

    def mask(self, hour: int, table: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Return for each point of an hour, given as `POINT_DTYPE`, whether it is removed."""
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
    """Return the number of first points of the bucket that are not in a stored sketch."""
    return int(SKETCH_HEADER.unpack_from(sketch)[0]) if sketch else 0


def added(*counts: BinCounts) -> BinCounts:
    """Return the sum of counts by bin."""
    bins, numbers = zip(*counts, strict=True)
    return sum_by_bin(np.concatenate(bins), np.concatenate(numbers))


def sketch_without(sketch: bytes, left_out: npt.NDArray[np.float64], removed: BinCounts) -> bytes:
    """Return a stored sketch without the `removed` points. All other points are in the result.

    Args:
        sketch: The stored value; empty if there is no sketch.
        left_out: The values of the points that are not in the stored sketch.
        removed: The counts of the removed points.
    """
    if not sketch:
        return b""
    entries = encode_counts(*subtract(added(counts_of_sketch(sketch), counts_of_values(left_out)), removed))
    return SKETCH_HEADER.pack(0, len(entries)) + entries
