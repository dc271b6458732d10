"""What a set of points comes to, small enough to keep for every minute and mergeable into any longer time."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from src.analytics.points import Point

_LATEST_BIAS = 2 * 10**17
"""Added to a timestamp, so that those of all years have 18 digits and their texts sort as they do.

Lua, where texts are compared, has doubles only, which microseconds outgrow in the year 2255.
"""

_NO_LONGER_FINITE = re.compile(rb"-?(?:inf|nan)")
"""As Python and Lua write a sum that overflowed."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """Count, sum, extremes and the latest of a set of points.

    The sum is kept as two doubles, a rounded one and what the rounding lost, after Neumaier ("Rundungsfehler-
    analyse einiger Verfahren zur Summation endlicher Summen", ZAMM 54, 1974): 10,000 times 0.1 averages to
    exactly 0.1. Where it overflows it is no longer finite and stays so; all else remains right.

    Attributes:
        count: Number of points. Of none, the rest means nothing.
        sum: Their sum, rounded.
        compensation: What `sum` lacks.
        minimum: The smallest value.
        maximum: The greatest value.
        latest_us: Timestamp of the latest, in microseconds since 1970.
        latest_arrival: Its place in the order of arrival, which decides between equal timestamps.
        latest_value: Its value.
    """

    count: int
    sum: float
    compensation: float
    minimum: float
    maximum: float
    latest_us: int
    latest_arrival: int
    latest_value: float

    @classmethod
    def empty(cls) -> "Rollup":
        """Return the rollup of no points."""
        return cls(0, 0.0, 0.0, math.inf, -math.inf, -_LATEST_BIAS, 0, 0.0)

    @classmethod
    def of(cls, point: Point, arrival: int) -> "Rollup":
        """Return the rollup of one point, the `arrival`-th of its type."""
        value = point.value
        return cls(1, value, 0.0, value, value, point.timestamp_us, arrival, value)

    @classmethod
    def of_entries(cls, entries: Sequence[tuple[int, int, float]]) -> "Rollup":
        """Return the rollup of points given as (timestamp in µs, arrival, value)."""
        return cls.of_values([value for _, _, value in entries], max(entries)) if entries else cls.empty()

    @classmethod
    def of_values(cls, values: Sequence[float], latest: tuple[int, int, float]) -> "Rollup":
        """Return the rollup of points, one at least, given as their values and the latest of them."""
        total, compensation = _exact_sum(values)
        return cls(len(values), total, compensation, min(values), max(values), *latest)

    @classmethod
    def decode(cls, *texts: bytes) -> "Rollup":
        """Return what `encode` wrote, as bytes: of several texts, the merger of all."""
        if not texts:
            return cls.empty()
        text = b",".join(texts).replace(b" ", b",")  # a JSON parser reads numbers faster than float() does
        if overflowed := b"n" in text:
            text = _NO_LONGER_FINITE.sub(b"0", text)
        fields = orjson.loads(b"[%b]" % text)
        columns = (fields[place::8] for place in range(8))
        counts, sums, compensations, minima, maxima, latest, arrivals, values = columns
        total, compensation = (math.nan, 0.0) if overflowed else _exact_sum(sums + compensations)
        latest_us, arrival, value = max(zip(latest, arrivals, values, strict=True))
        latest_us -= _LATEST_BIAS
        return cls(sum(counts), total, compensation, min(minima), max(maxima), latest_us, arrival, value)

    def encode(self) -> str:
        """Return the rollup as text, no digit lost.

        Eight fields between spaces: count, sum, compensation, minimum, maximum, the latest timestamp as 18
        digits that sort as the timestamps do, its arrival, its value.
        """
        return (
            f"{self.count} {self.sum!r} {self.compensation!r} {self.minimum!r} {self.maximum!r} "
            f"{self.latest_us + _LATEST_BIAS} {self.latest_arrival} {self.latest_value!r}"
        )

    def merge(self, *others: "Rollup") -> "Rollup":
        """Return the rollup of these points and those of `others`, which have none in common."""
        parts = [part for part in (self, *others) if part.count]
        if len(parts) < 2:
            return parts[0] if parts else self
        total, compensation = _exact_sum([share for part in parts for share in (part.sum, part.compensation)])
        latest = max(parts, key=lambda part: (part.latest_us, part.latest_arrival))
        return Rollup(
            sum(part.count for part in parts),
            total,
            compensation,
            min(part.minimum for part in parts),
            max(part.maximum for part in parts),
            latest.latest_us,
            latest.latest_arrival,
            latest.latest_value,
        )

    @property
    def total(self) -> float | None:
        """The sum of the values; None of no points, or where it overflows."""
        total = self.sum + self.compensation
        return total if self.count and math.isfinite(total) else None

    @property
    def average(self) -> float | None:
        """The mean of the values; None of no points, or where their sum overflows."""
        total = self.total
        return None if total is None else total / self.count


def _exact_sum(values: Sequence[float]) -> tuple[float, float]:
    """Return the sum of `values`, correctly rounded, and what the rounding lost."""
    try:
        total = math.fsum(values)
        return total, math.fsum([*values, -total])
    except (OverflowError, ValueError):  # beyond the doubles, or a part of it already was
        return math.nan, 0.0
