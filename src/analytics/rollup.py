"""The rollup of a set of points. It is small enough to store one per minute, and rollups can be merged.

A rollup is stored as a record of `RECORD_BYTES` bytes, which numpy and Lua can read.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from src.analytics.window import HOUR_US

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

_RECORD = struct.Struct("<ddddddiI")
RECORD_BYTES = _RECORD.size
RECORD_DTYPE = np.dtype(
    [
        ("count", "<f8"), ("sum", "<f8"), ("compensation", "<f8"), ("minimum", "<f8"), ("maximum", "<f8"),
        ("latest_value", "<f8"), ("latest_hour", "<i4"), ("latest_offset", "<u4"),
    ]
)  # fmt: skip
"""A record for numpy. The latest timestamp consists of its hour since 1970 and the µs within the hour."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """The count, the sum, the extremes and the latest point of a set of points.

    The sum is kept as two doubles, the rounded sum and its rounding error, after Neumaier ("Rundungsfehler-
    analyse einiger Verfahren zur Summation endlicher Summen", ZAMM 54, 1974). The average of 10,000 times 0.1
    is therefore exactly 0.1. After an overflow the sum is no longer finite; all other members stay correct.

    Attributes:
        count: The number of points. If it is 0, the other members have no meaning.
        sum: The rounded sum of the values.
        compensation: The rounding error of `sum`.
        minimum: The smallest value.
        maximum: The greatest value.
        latest_us: The timestamp of the latest point, in microseconds since 1970. If several points have this
            timestamp, the latest point is the one that arrived last.
        latest_value: The value of the latest point.
    """

    count: int
    sum: float
    compensation: float
    minimum: float
    maximum: float
    latest_us: int
    latest_value: float

    @classmethod
    def empty(cls) -> "Rollup":
        """Return the rollup of no points."""
        return cls(0, 0.0, 0.0, math.inf, -math.inf, 0, 0.0)

    @classmethod
    def from_points(cls, points: Sequence[tuple[int, float]]) -> "Rollup":
        """Return the rollup of at least one point.

        Args:
            points: The timestamp in µs and the value of each point, in order of arrival.
        """
        latest_us, latest_value = points[0]
        if len(points) == 1:
            return cls(1, latest_value, 0.0, latest_value, latest_value, latest_us, latest_value)
        values = [value for _, value in points]
        for timestamp, value in points:
            if timestamp >= latest_us:
                latest_us, latest_value = timestamp, value
        return cls(len(values), *exact_sum(values), min(values), max(values), latest_us, latest_value)

    @classmethod
    def from_arrays(cls, timestamps_us: Integers, values: Floats) -> "Rollup":
        """Return the rollup of points in order of arrival, given as int64 timestamps and float64 values."""
        if not len(values):
            return cls.empty()
        total, compensation = exact_sum(values.tolist())
        latest = len(values) - 1 - int(timestamps_us[::-1].argmax())
        return cls(
            len(values),
            total,
            compensation,
            float(values.min()),
            float(values.max()),
            int(timestamps_us[latest]),
            float(values[latest]),
        )

    @classmethod
    def from_records(cls, records: bytes) -> "Rollup":
        """Return the merged rollup of concatenated `records`.

        Records with count 0 are ignored. No two records may have the same latest timestamp.
        """
        table = np.frombuffer(records, dtype=RECORD_DTYPE)
        table = table[table["count"] > 0]
        if not len(table):
            return cls.empty()
        total, compensation = exact_sum([*table["sum"].tolist(), *table["compensation"].tolist()])
        times = table["latest_hour"].astype(np.int64) * HOUR_US + table["latest_offset"]
        latest = int(times.argmax())
        return cls(
            int(table["count"].sum()),
            total,
            compensation,
            float(table["minimum"].min()),
            float(table["maximum"].max()),
            int(times[latest]),
            float(table["latest_value"][latest]),
        )

    @classmethod
    def each(cls, records: npt.NDArray[np.void]) -> Iterator["Rollup"]:
        """Yield the rollup of each record, given as `RECORD_DTYPE`. No record has count 0."""
        latest_us = records["latest_hour"].astype(np.int64) * HOUR_US + records["latest_offset"]
        columns = (records[name].tolist() for name in ("sum", "compensation", "minimum", "maximum"))
        counts = records["count"].astype(np.int64).tolist()
        for count, total, lost, minimum, maximum, latest, value in zip(
            counts, *columns, latest_us.tolist(), records["latest_value"].tolist(), strict=True
        ):
            yield cls(count, *exact_sum((total, lost)), minimum, maximum, latest, value)

    @classmethod
    def merge(cls, parts: Iterable["Rollup"]) -> "Rollup":
        """Return the rollup of all points of `parts`.

        If several parts have the same latest timestamp, the latest point is that of the last of these parts.
        """
        parts = [part for part in parts if part.count]
        if len(parts) < 2:
            return parts[0] if parts else cls.empty()
        total, compensation = exact_sum([term for part in parts for term in (part.sum, part.compensation)])
        latest = max(reversed(parts), key=lambda part: part.latest_us)
        return cls(
            sum(part.count for part in parts),
            total,
            compensation,
            min(part.minimum for part in parts),
            max(part.maximum for part in parts),
            latest.latest_us,
            latest.latest_value,
        )

    def encode(self) -> bytes:
        """Return the record of the rollup. The latest timestamp must be in the years 1 to 9999."""
        return _RECORD.pack(
            self.count, self.sum, self.compensation, self.minimum, self.maximum, self.latest_value,
            *divmod(self.latest_us, HOUR_US),
        )  # fmt: skip

    @property
    def total(self) -> float | None:
        """The sum of the values; None if there are no points or the sum overflows."""
        total = self.sum + self.compensation
        return total if self.count and math.isfinite(total) else None

    @property
    def average(self) -> float | None:
        """The mean of the values; None if there are no points or the sum overflows."""
        total = self.total
        return None if total is None else total / self.count


def exact_sum(values: Sequence[float]) -> tuple[float, float]:
    """Return the sum of `values`, correctly rounded, and its rounding error."""
    try:
        total = math.fsum(values)
        return total, math.fsum([*values, -total])
    except (OverflowError, ValueError):  # the sum or one of the values exceeds the range of a double
        return math.nan, 0.0
