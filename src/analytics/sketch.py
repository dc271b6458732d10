"""Quantiles to 1 %, from counts in logarithmic bins.

The sketch of Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees" (PVLDB 12, 2019), without its limit on bins: doubles know no more than 145,000 of them, and
measurements of one kind fill a few hundred. Sketches of two sets add up to the sketch of both, which
quantiles themselves never do.

A sketch is kept in pages of sixteen neighbouring bins: the lowest byte of each count, then the next byte of
each, for as long as any count has one. That takes little room and is quickly read and added up.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TypeVar

P = TypeVar("P", int, bytes)

RELATIVE_ERROR = 0.01

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_BINS_PER_LOG = 1 / _LOG_GAMMA
_ZERO_OFFSET = 40_000
"""More than the bins below 1, so that every positive number has a positive bin."""

_BINS_A_PAGE = 16


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


def pages_of(bins: Mapping[int, int]) -> dict[int, bytes]:
    """Return a sketch, given as counts by bin, as contents by page."""
    pages: dict[int, bytearray] = {}
    for number, count in bins.items():
        content = pages.setdefault(number // _BINS_A_PAGE, bytearray(_BINS_A_PAGE))
        place = number % _BINS_A_PAGE
        content[place] = count % 256
        while count := count // 256:
            place += _BINS_A_PAGE
            if place >= len(content):
                content.extend(bytes(_BINS_A_PAGE))
            content[place] = count % 256
    return {page: bytes(content) for page, content in pages.items()}


def bins_of(pages: Iterable[tuple[P, bytes]]) -> dict[int, int]:
    """Return the counts by bin of sketches that are given as pages: those of all of them together.

    Args:
        pages: Numbers, all of them as text or none, and contents; a number as often as it occurs in a sketch.
    """
    contents: defaultdict[P, list[bytes]] = defaultdict(list)
    for page, content in pages:
        contents[page].append(content)
    return {
        number: count
        for page, some in contents.items()
        for number, count in enumerate(_counts_in(some), int(page) * _BINS_A_PAGE)
        if count
    }


def _counts_in(contents: Sequence[bytes]) -> list[int]:
    """Return the counts of one page, added up over its contents in several sketches."""
    lowest = [content[:_BINS_A_PAGE] for content in contents]
    counts = [sum(column) for column in zip(*lowest, strict=True)]
    if rest := [content[_BINS_A_PAGE:] for content in contents if len(content) > _BINS_A_PAGE]:
        counts = [count + 256 * more for count, more in zip(counts, _counts_in(rest), strict=True)]
    return counts


class LogBinSketch:
    """A set of values as counts by bin, and its bounds.

    Args:
        counts: How many values each bin has, by its number.
        minimum: The smallest value: no quantile is estimated smaller.
        maximum: The greatest value: no quantile is estimated greater.

    Attributes:
        count: Number of values.
    """

    __slots__ = ("_bins", "_maximum", "_minimum", "_ranks", "count")

    def __init__(self, counts: Mapping[int, int], minimum: float, maximum: float) -> None:
        self._bins = sorted(counts)
        self._ranks = list(accumulate([counts[number] for number in self._bins]))  # of each bin's last value
        self.count = self._ranks[-1] if counts else 0
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
        if not self.count:
            return None
        rank = math.ceil(Fraction(repr(q)) * self.count)  # exact: as a double, 0.07 * 100 is more than 7
        middle = _middle_of(self._bins[bisect_left(self._ranks, rank)])
        return min(max(middle, self._minimum), self._maximum)


def _middle_of(number: int) -> float:
    """Return the number that is within 1 % of every one in the bin: 2 g^i / (g + 1)."""
    if number == 0:
        return 0.0
    logarithm = (abs(number) - _ZERO_OFFSET) * _LOG_GAMMA + math.log(2 / (_GAMMA + 1))
    return math.copysign(math.exp(logarithm), number)
