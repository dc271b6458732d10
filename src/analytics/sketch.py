"""Quantiles with a relative error of at most 1 %, from counts in logarithmic bins.

The sketch is that of Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees" (PVLDB 12, 2019), without its limit on bins: doubles have at most 145,000 bins, and
measurements of one kind use a few hundred. The sum of two sketches is the sketch of both sets of values.
Quantiles cannot be added.

A sketch is stored as a log of entries of 4 bytes. Each entry adds to the count of one bin. Points are added
by appending entries, and two sketches are added by concatenating their logs.
"""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.int64]
BinCounts: TypeAlias = tuple[Numbers, Numbers]
"""Distinct bins in ascending order, and the number of values in each bin."""

RELATIVE_ERROR = 0.01

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_BINS_PER_LOG = 1 / _LOG_GAMMA
_ZERO_OFFSET: Final = 40_000
"""Greater than the number of bins below 1, so that every positive number has a positive bin."""

# An entry is a little-endian u4: the bin plus 2^17 in 18 bits, a scale bit, and a count in 13 bits. The scale
# bit multiplies the count by 2^13.
_BIN_OFFSET: Final = 1 << 17
_COUNT_BITS: Final = 13
_SCALE_BIT: Final = 1 << _COUNT_BITS
_MAX_COUNT: Final = _SCALE_BIT - 1
_BIN_SHIFT: Final = _COUNT_BITS + 1

_DENSE_CELLS: Final = 16
"""The largest ratio of possible cells to existing cells at which a table of all possible cells is used."""


def bins_of(values: npt.NDArray[np.float64]) -> Numbers:
    """Return the int64 bins of finite float64 `values`. A greater value never has a smaller bin; 0 has bin 0.

    A bin of positive numbers contains the numbers above g^(i-1) up to g^i, where g = 1.01 / 0.99. The bin of
    a negative number is the negated bin of its absolute value.
    """
    magnitudes = np.abs(values)
    with np.errstate(divide="ignore"):
        bins = np.ceil(np.log(magnitudes) * _BINS_PER_LOG)
    signed = np.copysign(bins + _ZERO_OFFSET, values)
    if not magnitudes.all():
        signed[magnitudes == 0] = 0
    numbers: Numbers = signed.astype(np.int64)
    return numbers


def bin_of(value: float) -> int:
    """Return the bin of one finite value, like `bins_of`."""
    if value == 0:
        return 0
    # numpy's logarithm, like in `bins_of`. That of the C library can differ in the last digit.
    number = _ZERO_OFFSET + math.ceil(float(np.log(abs(value))) * _BINS_PER_LOG)
    return number if value > 0 else -number


def entry_of(number: int) -> int:
    """Return the entry that adds 1 to the count of bin `number`."""
    return (number + _BIN_OFFSET) << _BIN_SHIFT | 1


def encode_counts(bins: Numbers, counts: Numbers) -> bytes:
    """Return entries for `bins` with positive `counts`."""
    entries, _ = encode_each(bins, counts)
    return entries.tobytes()


def encode_each(bins: Numbers, counts: Numbers) -> tuple[npt.NDArray[np.uint32], Numbers]:
    """Return entries for `bins` with positive `counts`, and the index of each entry's bin.

    A count that is too large for one entry is divided into several entries.
    """
    heads = (bins + _BIN_OFFSET) << _BIN_SHIFT
    indexes = np.arange(len(bins))
    if counts.max(initial=0) <= _MAX_COUNT:
        return (heads | counts).astype("<u4"), indexes
    ones, scaled = counts & _MAX_COUNT, counts >> _COUNT_BITS
    entries, owners = [(heads | ones)[ones > 0]], [indexes[ones > 0]]
    while (more := scaled > 0).any():
        part = np.minimum(scaled, _MAX_COUNT)
        entries.append((heads | _SCALE_BIT | part)[more])
        owners.append(indexes[more])
        scaled -= part
    return np.concatenate(entries).astype("<u4"), np.concatenate(owners)


def decode_entries(entries: bytes) -> BinCounts:
    """Return the distinct bins of `entries` in ascending order, and their counts."""
    return sum_by_bin(*decode_each(entries))


def decode_each(entries: bytes) -> tuple[Numbers, Numbers]:
    """Return the bin and the count of each of `entries`."""
    raw = np.frombuffer(entries, dtype="<u4")
    bins = (raw >> _BIN_SHIFT).astype(np.int64) - _BIN_OFFSET
    counts = (raw & _MAX_COUNT).astype(np.int64)
    is_scaled = (raw & _SCALE_BIT) != 0
    if is_scaled.any():
        counts[is_scaled] <<= _COUNT_BITS
    return bins, counts


def sum_cells(owners: Numbers, bins: Numbers, counts: Numbers, size: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return the distinct cells of several sketches in order of owner and bin, with the sums of their counts.

    Args:
        owners: The number of each cell's sketch.
        bins: The bin of each cell.
        counts: The count of each cell.
        size: The number of sketches.
    """
    if not len(bins):
        return owners, bins, counts
    lowest = int(bins.min())
    width = int(bins.max()) - lowest + 1
    keys = owners * width + (bins - lowest)
    if size * width <= _DENSE_CELLS * len(bins):
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
    owners: Numbers, bins: Numbers, counts: Numbers, size: int
) -> tuple[npt.NDArray[np.uint32], Numbers]:
    """Return the entries of several sketches, sorted by sketch, and the number of entries of each sketch.

    The arguments are those of `sum_cells`. The cells must be distinct.
    """
    entries, cells = encode_each(bins, counts)
    owners = owners[cells]
    return entries[np.argsort(owners, kind="stable")], np.bincount(owners, minlength=size)


def sum_by_bin(bins: Numbers, counts: Numbers) -> BinCounts:
    """Return the distinct `bins` in ascending order, and the sums of their `counts`."""
    if not len(bins):
        return bins, counts
    lowest = int(bins.min())  # the bins of one metric type are close together
    sums = np.bincount(bins - lowest, weights=counts)  # floats, which are exact below 2^53
    used = np.flatnonzero(sums)
    return used + lowest, sums[used].astype(np.int64)


def subtract(counts: BinCounts, removed: BinCounts) -> BinCounts:
    """Return `counts` without the `removed` values, which are among those counted.

    Counts are whole numbers, so the difference is exact. A logarithm may differ in its last digit between
    machines, and then a value on the border of two bins was counted in the neighbour of the bin that is
    removed: what a bin lacks is taken from its neighbours.
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
    """A set of values as counts by bin, with the smallest and the greatest value.

    Args:
        bins: Distinct bins in ascending order.
        counts: The number of values in each bin.
        minimum: The smallest value, the lower bound of every estimate.
        maximum: The greatest value, the upper bound of every estimate.

    Attributes:
        count: The number of values.
    """

    __slots__ = ("_bins", "_maximum", "_minimum", "_ranks", "count")

    def __init__(self, bins: Numbers, counts: Numbers, minimum: float, maximum: float) -> None:
        self._bins = bins
        self._ranks = counts.cumsum()  # the rank of each bin's last value
        self.count = int(self._ranks[-1]) if len(bins) else 0
        self._minimum = minimum
        self._maximum = maximum

    @classmethod
    def from_counts(cls, counts: Mapping[int, int], minimum: float, maximum: float) -> "LogBinSketch":
        """Return the sketch with the given counts by bin."""
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
        bins = bins_of(array)
        return cls(
            *sum_by_bin(bins, np.ones_like(bins)),
            float(array.min(initial=math.inf)),
            float(array.max(initial=-math.inf)),
        )

    def quantile(self, q: float) -> float | None:
        """Estimate the quantile `q`: the smallest value with at least ⌈q·n⌉ of the n values at or below it.

        Args:
            q: A number from 0 to 1; 0.5 is the median.

        Returns:
            A number within 1 % of the quantile, except for subnormal values, which are less precise; None if
            there are no values.

        Raises:
            ValueError: `q` is outside its range.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be from 0 to 1, not {q}")
        if not self.count:
            return None
        rank = math.ceil(_fraction(q) * self.count)  # exact arithmetic: with doubles, 0.07 * 100 exceeds 7
        middle = _middle_of(int(self._bins[self._ranks.searchsorted(rank)]))
        return min(max(middle, self._minimum), self._maximum)


@lru_cache(maxsize=16)
def _fraction(q: float) -> Fraction:
    return Fraction(repr(q))


@lru_cache(maxsize=4096)
def _middle_of(number: int) -> float:
    """Return 2 g^i / (g + 1), which is within 1 % of every number in the bin."""
    if number == 0:
        return 0.0
    logarithm = (abs(number) - _ZERO_OFFSET) * _LOG_GAMMA + math.log(2 / (_GAMMA + 1))
    return math.copysign(math.exp(logarithm), number)
