"""Quantiles to 1 %, from counts in logarithmic bins.

The sketch of Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees" (PVLDB 12, 2019), without its limit on bins: doubles know no more than 145,000 of them, and
measurements of one kind fill a few hundred. Sketches of two sets add up to the sketch of both, which
quantiles themselves never do.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TypeVar

B = TypeVar("B")

RELATIVE_ERROR = 0.01

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_BINS_PER_LOG = 1 / _LOG_GAMMA
_ZERO_OFFSET = 40_000
"""More than the bins below 1, so that every positive number has a positive bin."""


def bin_of(value: float) -> int:
    """Return the bin of a finite `value`; greater values never have smaller bins, and 0 has bin 0.

    A bin of positive numbers reaches from g^(i-1), without, to g^i, with, where g = 1.01 / 0.99; those of
    negative numbers mirror them.
    """
    if value > 0:
        return _ZERO_OFFSET + math.ceil(math.log(value) * _BINS_PER_LOG)
    if value < 0:
        return -_ZERO_OFFSET - math.ceil(math.log(-value) * _BINS_PER_LOG)
    return 0


def merge_bins(parts: Iterable[Mapping[B, int]]) -> dict[B, int]:
    """Add up the counts by bin of several sets of values: those of all of them together.

    Bins may go by any name, so that what is read as text need not be made numbers first.
    """
    counts: dict[B, int] = {}
    for part in parts:
        for number, count in part.items():
            counts[number] = counts.get(number, 0) + count
    return counts


class LogBinSketch:
    """A set of values as counts by bin, and its bounds.

    Args:
        counts: How many values each bin has, by its number. Add up those of several sets by `merge_bins`.
        minimum: The smallest value: no quantile is estimated smaller.
        maximum: The greatest value: no quantile is estimated greater.

    Attributes:
        count: Number of values.
    """

    __slots__ = ("_bins", "_maximum", "_minimum", "count")

    def __init__(self, counts: Mapping[int, int], minimum: float, maximum: float) -> None:
        self.count = sum(counts.values())
        self._bins = sorted(counts.items())
        self._minimum = minimum
        self._maximum = maximum

    @classmethod
    def of(cls, values: Iterable[float]) -> "LogBinSketch":
        """Return the sketch of finite `values`."""
        values = list(values)
        counts = Counter(map(bin_of, values))
        return cls(counts, min(values, default=math.inf), max(values, default=-math.inf))

    def quantile(self, q: float) -> float | None:
        """Estimate the smallest value that at least ⌈q·n⌉ of the n values do not exceed (nearest rank).

        Args:
            q: From 0 to 1; 0.5 asks for the median.

        Returns:
            A number within 1 % of that value, subnormal ones aside, that have no such precision themselves;
            None of no values.

        Raises:
            ValueError: `q` is outside its range.
        """
        if not 0 <= q <= 1:
            raise ValueError("a quantile is asked for by a number from 0 to 1")
        rank = math.ceil(Fraction(repr(q)) * self.count)  # exact: as a double, 0.07 * 100 is more than 7
        for number, count in self._bins:
            rank -= count
            if rank <= 0:
                return min(max(_middle_of(number), self._minimum), self._maximum)
        return None


def _middle_of(number: int) -> float:
    """Return the number that is within 1 % of every one in the bin: 2 g^i / (g + 1)."""
    if number == 0:
        return 0.0
    logarithm = (abs(number) - _ZERO_OFFSET) * _LOG_GAMMA + math.log(2 / (_GAMMA + 1))
    return math.copysign(math.exp(logarithm), number)
