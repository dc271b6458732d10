"""Quantiles with a relative error of at most 1 %, from counts in logarithmic bins.

The sketch is that of Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees" (PVLDB 12, 2019), without the paper's limit on the number of bins. No limit is
needed: doubles have at most 145,000 bins, and the values of one metric use a few hundred. Sketches can be
added, unlike quantiles: the sum of two sketches is the sketch of both sets of values.

A sketch is stored as a log of entries of 4 bytes. Each entry adds to the count of one bin. A value is added
by appending an entry, and two sketches are added by concatenating their logs.
"""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Integers: TypeAlias = npt.NDArray[np.int64]
"""An array of int64."""

BinCounts: TypeAlias = tuple[Integers, Integers]
"""Distinct bins in ascending order, and the number of values in each bin."""

RELATIVE_ERROR = 0.01
"""The largest relative error of an estimate."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_BINS_PER_LOG = 1 / _LOG_GAMMA
_ZERO_OFFSET: Final = 40_000
"""Added to positive bins. It exceeds the number of bins below 1, so positive values have positive bins."""

# An entry is a little-endian uint32. From the highest bit, it has the bin plus 2^17 (18 bits), a scale bit,
# and a count (13 bits). If the scale bit is set, the count is multiplied by 2^13.
_BIN_OFFSET: Final = 1 << 17
_COUNT_BITS: Final = 13
_SCALE_BIT: Final = 1 << _COUNT_BITS
_MAX_COUNT: Final = _SCALE_BIT - 1
_BIN_SHIFT: Final = _COUNT_BITS + 1

_MAX_DENSE_RATIO: Final = 16
"""`sum_cells` uses a table of all possible cells if it has at most this many times the existing cells."""


def find_bins(values: npt.NDArray[np.float64]) -> Integers:
    """Return the bins of finite `values`. A greater value never has a smaller bin.

    If a positive value is above g^(i-1) and at most g^i, where g = 1.01 / 0.99, its bin is i +
    `_ZERO_OFFSET`. The bin of a negative value is the negated bin of its absolute value. The bin of 0 is 0.
    """
    magnitudes = np.abs(values)
    with np.errstate(divide="ignore"):
        bins = np.ceil(np.log(magnitudes) * _BINS_PER_LOG)
    signed = np.copysign(bins + _ZERO_OFFSET, values)
    if not magnitudes.all():
        signed[magnitudes == 0] = 0
    numbers: Integers = signed.astype(np.int64)
    return numbers


def find_bin(value: float) -> int:
    """Return the bin of one finite value. The bin is the same as in `find_bins`."""
    if value == 0:
        return 0
    # Both functions must use numpy's logarithm: the logarithm of the C library can differ in the last digit.
    bin_number = _ZERO_OFFSET + math.ceil(float(np.log(abs(value))) * _BINS_PER_LOG)
    return bin_number if value > 0 else -bin_number


def encode_one(bin_number: int) -> int:
    """Return the entry that adds 1 to the count of a bin."""
    return (bin_number + _BIN_OFFSET) << _BIN_SHIFT | 1


def encode_counts(bins: Integers, counts: Integers) -> bytes:
    """Return entries that add positive `counts` to the counts of `bins`."""
    entries, _ = encode_with_indexes(bins, counts)
    return entries.tobytes()


def encode_with_indexes(bins: Integers, counts: Integers) -> tuple[npt.NDArray[np.uint32], Integers]:
    """Return entries that add positive `counts` to `bins`, and the index in `bins` of each entry's bin.

    A count that is too large for one entry is divided among several entries.
    """
    bin_parts = (bins + _BIN_OFFSET) << _BIN_SHIFT
    indexes = np.arange(len(bins))
    if counts.max(initial=0) <= _MAX_COUNT:
        return (bin_parts | counts).astype("<u4"), indexes
    unscaled, scaled = counts & _MAX_COUNT, counts >> _COUNT_BITS
    entries, entry_indexes = [(bin_parts | unscaled)[unscaled > 0]], [indexes[unscaled > 0]]
    while (is_left := scaled > 0).any():
        part = np.minimum(scaled, _MAX_COUNT)
        entries.append((bin_parts | _SCALE_BIT | part)[is_left])
        entry_indexes.append(indexes[is_left])
        scaled -= part
    return np.concatenate(entries).astype("<u4"), np.concatenate(entry_indexes)


def decode_entries(entries: bytes) -> BinCounts:
    """Return the distinct bins of `entries` in ascending order, and their counts."""
    return sum_by_bin(*decode_in_order(entries))


def decode_in_order(entries: bytes) -> tuple[Integers, Integers]:
    """Return the bin and the count of each entry, in the order of `entries`."""
    raw = np.frombuffer(entries, dtype="<u4")
    bins = (raw >> _BIN_SHIFT).astype(np.int64) - _BIN_OFFSET
    counts = (raw & _MAX_COUNT).astype(np.int64)
    is_scaled = (raw & _SCALE_BIT) != 0
    if is_scaled.any():
        counts[is_scaled] <<= _COUNT_BITS
    return bins, counts


def sum_cells(
    owners: Integers, bins: Integers, counts: Integers, sketch_count: int
) -> tuple[Integers, Integers, Integers]:
    """Sum the counts of equal cells. A cell is a bin of one of several sketches.

    Args:
        owners: The index of each cell's sketch, from 0.
        bins: The bin of each cell.
        counts: The count of each cell.
        sketch_count: The number of sketches.

    Returns:
        The owners, bins and summed counts of the distinct cells, in order of owner and then bin.
    """
    if not len(bins):
        return owners, bins, counts
    lowest = int(bins.min())
    width = int(bins.max()) - lowest + 1
    keys = owners * width + (bins - lowest)
    if sketch_count * width <= _MAX_DENSE_RATIO * len(bins):
        sums = np.bincount(keys, weights=counts)  # floats, which are exact below 2^53
        cells = np.flatnonzero(sums)
        totals = sums[cells].astype(np.int64)
    else:
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        cells, totals = keys[starts], np.add.reduceat(counts[order], starts)
    return cells // width, cells % width + lowest, totals


def encode_cells(
    owners: Integers, bins: Integers, counts: Integers, sketch_count: int
) -> tuple[npt.NDArray[np.uint32], Integers]:
    """Encode the cells of several sketches.

    The arguments are the same as those of `sum_cells`, but no two cells may be equal.

    Returns:
        The entries in order of sketch, and the number of entries of each sketch.
    """
    entries, cell_indexes = encode_with_indexes(bins, counts)
    owners = owners[cell_indexes]
    return entries[np.argsort(owners, kind="stable")], np.bincount(owners, minlength=sketch_count)


def decode_cells(entries: bytes, sizes: Integers) -> tuple[Integers, Integers, Integers]:
    """Return the cells that `encode_cells` encoded, in order of owner and then bin.

    Args:
        entries: The entries in order of sketch.
        sizes: The number of entries of each sketch.
    """
    bins, counts = decode_in_order(entries)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    if counts.max(initial=0) <= _MAX_COUNT:
        return owners, bins, counts
    return sum_cells(owners, bins, counts, len(sizes))  # a large count is divided among several entries


def sum_by_bin(bins: Integers, counts: Integers) -> BinCounts:
    """Return the distinct `bins` in ascending order, and the sum of the `counts` of each bin."""
    if not len(bins):
        return bins, counts
    lowest = int(bins.min())  # the bins of one metric type are close together
    sums = np.bincount(bins - lowest, weights=counts)  # floats, which are exact below 2^53
    used = np.flatnonzero(sums)
    return used + lowest, sums[used].astype(np.int64)


def subtract(counts: BinCounts, removed: BinCounts) -> BinCounts:
    """Return `counts` without the `removed` values, which are among those counted.

    Counts are whole numbers, so the difference is exact. One exception: logarithms may differ in the last
    digit between machines, so a value on the border of two bins may be counted in either of them. If a bin
    has fewer values than are removed, the rest is removed from its neighbours.
    """
    bins, found = sum_by_bin(
        np.concatenate((counts[0], removed[0])), np.concatenate((counts[1], -removed[1]))
    )
    if found.min(initial=0) >= 0:
        return bins, found
    rest = dict(zip(bins.tolist(), found.tolist(), strict=True))
    for number, lack in [(number, -count) for number, count in rest.items() if count < 0]:
        rest[number] = 0
        for neighbour in (number - 1, number + 1):
            share = min(max(rest.get(neighbour, 0), 0), lack)
            if share:
                rest[neighbour] -= share
                lack -= share  # noqa: PLW2901
    kept = [number for number, count in rest.items() if count]
    return np.array(kept, dtype=np.int64), np.array([rest[number] for number in kept], dtype=np.int64)


class LogBinSketch:
    """The sketch of a set of values: a count for each bin, and the smallest and the greatest value.

    Args:
        bins: Distinct bins in ascending order.
        counts: The number of values in each bin.
        minimum: The smallest value. No estimate is smaller.
        maximum: The greatest value. No estimate is greater.

    Attributes:
        count: The number of values.
    """

    __slots__ = ("_bins", "_maximum", "_minimum", "_ranks", "count")

    def __init__(self, bins: Integers, counts: Integers, minimum: float, maximum: float) -> None:
        self._bins = bins
        self._ranks = counts.cumsum()  # the rank of each bin's last value
        self.count = int(self._ranks[-1]) if len(bins) else 0
        self._minimum = minimum
        self._maximum = maximum

    @classmethod
    def from_counts(cls, counts: Mapping[int, int], minimum: float, maximum: float) -> "LogBinSketch":
        """Return the sketch with the given count of each bin."""
        bins = sorted(counts)
        return cls(
            np.array(bins, dtype=np.int64),
            np.array([counts[n] for n in bins], dtype=np.int64),
            minimum,
            maximum,
        )

    @classmethod
    def from_values(cls, values: Iterable[float]) -> "LogBinSketch":
        """Return the sketch of finite `values`."""
        array = np.fromiter(values, dtype=np.float64)
        bins = find_bins(array)
        return cls(
            *sum_by_bin(bins, np.ones_like(bins)),
            float(array.min(initial=math.inf)),
            float(array.max(initial=-math.inf)),
        )

    def quantile(self, q: float) -> float | None:
        """Estimate the quantile `q`, which is number ⌈q·n⌉ (from 1) of the n values in ascending order.

        Args:
            q: A number from 0 to 1; 0.5 is the median.

        Returns:
            A number within 1 % of the quantile; None if there are no values. Estimates of subnormal values
            are less precise.

        Raises:
            ValueError: `q` is outside its range.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be from 0 to 1, not {q}")
        if not self.count:
            return None
        numerator, denominator = _fraction(q).as_integer_ratio()
        rank = -(-numerator * self.count // denominator)  # exact: with doubles, 0.07 * 100 exceeds 7
        estimate = _estimate_in_bin(int(self._bins[self._ranks.searchsorted(rank)]))
        return min(max(estimate, self._minimum), self._maximum)


@lru_cache(maxsize=16)
def _fraction(q: float) -> Fraction:
    return Fraction(repr(q))


@lru_cache(maxsize=4096)
def _estimate_in_bin(bin_number: int) -> float:
    """Return a number within 1 % of every value in a bin: 2 g^i / (g + 1), with g and i as in `find_bins`."""
    if bin_number == 0:
        return 0.0
    logarithm = (abs(bin_number) - _ZERO_OFFSET) * _LOG_GAMMA + math.log(2 / (_GAMMA + 1))
    return math.copysign(math.exp(logarithm), bin_number)
