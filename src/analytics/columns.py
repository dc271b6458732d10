"""Points as columns, and their fold by minute: the unit in which points are stored.

Batches go through numpy. A few points, as one tick of the event loop usually brings, are faster without it:
one call of numpy costs as much as the fold of a single point.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from src.analytics.points import Point
from src.analytics.rollup import Floats, Integers, Rollup
from src.analytics.sketch import bin_of, bins_of, encode_bins, entry_of
from src.analytics.window import HOUR_US, MINUTE_US

SeriesNumbers: TypeAlias = npt.NDArray[np.uint16]

_POINT: Final = struct.Struct("<IHd")
POINT_DTYPE = np.dtype([("offset", "<u4"), ("series", "<u2"), ("value", "<f8")])
"""A stored point: µs within its hour, number of its series within its type, value."""
POINT_BYTES: Final = _POINT.size

FEW: Final = 12
"""Up to so many points are folded without numpy."""


class PointColumns(NamedTuple):
    """Points of one type, in order of arrival.

    Attributes:
        type: Name of the type.
        places: Their places in the request, from 0.
        timestamps_us: int64, microseconds since 1970.
        values: float64, finite.
        labels: The labels of each, as `labels_text` writes them; None if no point has labels.
    """

    type: str
    places: Integers
    timestamps_us: Integers
    values: Floats
    labels: Sequence[str] | None = None

    def without(self, unwanted: npt.NDArray[np.bool_]) -> "PointColumns":
        """Return the points that are not `unwanted`."""
        keep = ~unwanted
        labels = (
            None
            if self.labels is None
            else [text for text, kept in zip(self.labels, keep, strict=True) if kept]
        )
        return PointColumns(self.type, self.places[keep], self.timestamps_us[keep], self.values[keep], labels)


def columns_of(points: Sequence[Point], places: Sequence[int] | None = None) -> list[PointColumns]:
    """Return points as columns by type.

    Args:
        points: In order of arrival.
        places: Their places in the request; None if these are 0, 1, 2 and so on.
    """
    by_type: dict[str, list[int]] = {}
    for index, point in enumerate(points):
        by_type.setdefault(point.type, []).append(index)
    return [
        _columns_of(name, [points[i] for i in some], [places[i] for i in some] if places else some)
        for name, some in by_type.items()
    ]


def _columns_of(name: str, points: Sequence[Point], places: Sequence[int]) -> PointColumns:
    _, timestamps, values, labels = zip(*points, strict=True)
    return PointColumns(
        name,
        np.array(places),
        np.array(timestamps, dtype=np.int64),
        np.array(values, dtype=np.float64),
        labels if any(labels) else None,
    )


class MinuteFold(NamedTuple):
    """The points of one minute, as they are stored.

    Attributes:
        minute: Number of the minute since 1970.
        size: Number of points.
        points: The points in order of arrival, as `POINT_DTYPE`.
        rollup: The record of their rollup.
        entries: The entries of their sketch.
    """

    minute: int
    size: int
    points: bytes
    rollup: bytes
    entries: bytes


def fold(timestamps_us: Integers, values: Floats, series: SeriesNumbers) -> Iterator[MinuteFold]:
    """Yield points minute by minute, in ascending order of time.

    Args:
        timestamps_us: int64, microseconds since 1970, in order of arrival.
        values: float64, finite.
        series: uint16, the number of each point's series within its type.
    """
    minutes = timestamps_us // MINUTE_US
    bins = bins_of(values)
    if minutes.min() == minutes.max():
        yield _fold_minute(int(minutes[0]), timestamps_us, values, series, bins)
        return
    order = np.argsort(minutes, kind="stable")
    minutes, timestamps_us, values = minutes[order], timestamps_us[order], values[order]
    series, bins = series[order], bins[order]
    bounds = [0, *(np.flatnonzero(np.diff(minutes)) + 1).tolist(), len(minutes)]
    for start, stop in pairwise(bounds):
        some = slice(start, stop)
        yield _fold_minute(int(minutes[start]), timestamps_us[some], values[some], series[some], bins[some])


def _fold_minute(
    minute: int, timestamps_us: Integers, values: Floats, series: SeriesNumbers, bins: Integers
) -> MinuteFold:
    points = np.empty(len(values), dtype=POINT_DTYPE)
    points["offset"] = timestamps_us - minute * MINUTE_US // HOUR_US * HOUR_US
    points["series"] = series
    points["value"] = values
    rollup = Rollup.of_arrays(timestamps_us, values)
    return MinuteFold(minute, len(values), points.tobytes(), rollup.encode(), encode_bins(bins))


def fold_few(points: Sequence[tuple[int, float, int]]) -> list[MinuteFold]:
    """Return what `fold` yields of a few points, given as (timestamp in µs, value, number of the series)."""
    if len(points) == 1:
        return [_fold_few(points[0][0] // MINUTE_US, points)]
    points = sorted(points, key=_minute_of)
    minutes = [timestamp // MINUTE_US for timestamp, _, _ in points]
    folds, start = [], 0
    while start < len(points):
        stop = bisect_right(minutes, minutes[start], start)
        folds.append(_fold_few(minutes[start], points[start:stop]))
        start = stop
    return folds


def _minute_of(point: tuple[int, float, int]) -> int:
    return point[0] // MINUTE_US


def _fold_few(minute: int, points: Sequence[tuple[int, float, int]]) -> MinuteFold:
    hour_us = minute * MINUTE_US // HOUR_US * HOUR_US
    packed = b"".join(
        [_POINT.pack(timestamp - hour_us, series, value) for timestamp, value, series in points]
    )
    entries = b"".join([entry_of(bin_of(value)).to_bytes(4, "little") for _, value, _ in points])
    rollup = Rollup.of_few([(timestamp, value) for timestamp, value, _ in points])
    return MinuteFold(minute, len(points), packed, rollup.encode(), entries)
