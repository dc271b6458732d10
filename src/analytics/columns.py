"""Points as columns, and their fold by minute, which is the unit of storage.

numpy folds batches, all types together. A few points, as usual in one tick of the event loop, are faster
without numpy, since one numpy call costs as much as the fold of a single point.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from src.analytics.points import Point
from src.analytics.rollup import RECORD_BYTES, RECORD_DTYPE, Floats, Integers, Rollup, exact_sum
from src.analytics.sketch import encode_cells, encode_one, find_bin, find_bins, sum_cells
from src.analytics.window import HOUR_US, MINUTE_US

SeriesNumbers: TypeAlias = npt.NDArray[np.uint16]

_POINT: Final = struct.Struct("<IHd")
POINT_DTYPE = np.dtype([("offset", "<u4"), ("series", "<u2"), ("value", "<f8")])
"""A stored point: µs since the beginning of its hour, number of its series within its type, value."""
POINT_BYTES: Final = _POINT.size

FEW: Final = 64
"""The largest number of points, of all types together, that are folded without numpy."""


class PointColumns(NamedTuple):
    """Points of one type, in order of arrival.

    Attributes:
        type: The name of the type.
        indexes: The index of each point in the request, from 0.
        timestamps_us: int64, microseconds since 1970.
        values: float64, finite.
        labels: The labels of each point, in the form of `labels_text`; None if no point has labels.
    """

    type: str
    indexes: Integers
    timestamps_us: Integers
    values: Floats
    labels: Sequence[str] | None = None

    def without(self, dropped: npt.NDArray[np.bool_]) -> "PointColumns":
        """Return the points for which `dropped` is false."""
        keep = ~dropped
        labels = (
            None
            if self.labels is None
            else [text for text, kept in zip(self.labels, keep, strict=True) if kept]
        )
        return PointColumns(
            self.type, self.indexes[keep], self.timestamps_us[keep], self.values[keep], labels
        )


def columns_of(points: Sequence[Point], indexes: Sequence[int] | None = None) -> list[PointColumns]:
    """Return `points` as one `PointColumns` for each type.

    Args:
        points: The points in order of arrival.
        indexes: The index of each point in the request; by default 0, 1, 2 and so on.
    """
    by_type: dict[str, list[int]] = {}
    for position, point in enumerate(points):
        by_type.setdefault(point.type, []).append(position)
    return [
        _type_columns(name, [points[i] for i in some], [indexes[i] for i in some] if indexes else some)
        for name, some in by_type.items()
    ]


def _type_columns(name: str, points: Sequence[Point], indexes: Sequence[int]) -> PointColumns:
    _, timestamps, values, labels = zip(*points, strict=True)
    return PointColumns(
        name,
        np.array(indexes),
        np.array(timestamps, dtype=np.int64),
        np.array(values, dtype=np.float64),
        labels if any(labels) else None,
    )


class MinuteFold(NamedTuple):
    """The points of one minute, in the form in which they are stored.

    Attributes:
        minute: The number of the minute since 1970.
        points: The points in order of arrival, as `POINT_DTYPE`.
        rollup: The record of the points' rollup.
        entries: The entries of the points' sketch.
    """

    minute: int
    points: bytes
    rollup: bytes
    entries: bytes


class TypeFold(NamedTuple):
    """The points of one type, in the form in which they are stored.

    Attributes:
        minutes: The points by minute, in ascending order of time.
        entries: The entries of the sketch of all points; empty if all points are in one minute.
    """

    minutes: list[MinuteFold]
    entries: bytes


def fold(parts: Sequence[tuple[Integers, Floats, SeriesNumbers]]) -> list[TypeFold]:
    """Return the folds of each type. All types are folded together, which is faster.

    Args:
        parts: The points of each type in order of arrival, at least one point: int64 timestamps in µs since
            1970, finite float64 values, and the uint16 number of each point's series within its type.
    """
    sizes = [len(values) for _, values, _ in parts]
    timestamps, values, series = map(np.concatenate, zip(*parts, strict=True))
    owners = np.repeat(np.arange(len(parts)), sizes)
    bins = find_bins(values)
    ones = np.ones_like(bins)
    type_entries = _split_cells(*sum_cells(owners, bins, ones, len(parts)), len(parts))

    minutes = timestamps // MINUTE_US
    first = int(minutes.min())
    groups = owners * (int(minutes.max()) - first + 1) + (minutes - first)
    order = np.argsort(groups, kind="stable")
    timestamps, values, groups = timestamps[order], values[order], groups[order]
    starts = np.concatenate(([0], np.flatnonzero(groups[1:] != groups[:-1]) + 1))
    ends = np.append(starts[1:], len(groups))
    numbers = np.repeat(np.arange(len(starts)), ends - starts)
    minute_entries = _split_cells(*sum_cells(numbers, bins[order], ones, len(starts)), len(starts))

    points = np.empty(len(values), dtype=POINT_DTYPE)
    points["offset"] = timestamps % HOUR_US
    points["series"] = series[order]
    points["value"] = values
    packed = points.tobytes()
    records = _records(timestamps, values, starts, ends, numbers).tobytes()
    folds = [
        MinuteFold(
            minute,
            packed[start * POINT_BYTES : end * POINT_BYTES],
            records[index * RECORD_BYTES : (index + 1) * RECORD_BYTES],
            minute_entries[index],
        )
        for index, (minute, start, end) in enumerate(
            zip(minutes[order][starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
        )
    ]
    bounds = np.searchsorted(owners[order][starts], np.arange(len(parts) + 1)).tolist()
    return [
        TypeFold(folds[begin:end], entries if end - begin > 1 else b"")
        for begin, end, entries in zip(bounds, bounds[1:], type_entries, strict=False)
    ]


def _records(
    timestamps_us: Integers, values: Floats, starts: Integers, ends: Integers, numbers: Integers
) -> npt.NDArray[np.void]:
    """Return the record of each group. The points are sorted by group."""
    latest_us = np.maximum.reduceat(timestamps_us, starts)
    is_latest = np.flatnonzero(timestamps_us == latest_us[numbers])
    latest = is_latest[
        np.searchsorted(is_latest, ends) - 1
    ]  # the last arrival counts if timestamps are equal
    listed = values.tolist()
    records = np.empty(len(starts), dtype=RECORD_DTYPE)
    records["count"] = ends - starts
    records["sum"], records["compensation"] = zip(
        *[exact_sum(listed[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)],
        strict=True,
    )
    records["minimum"] = np.minimum.reduceat(values, starts)
    records["maximum"] = np.maximum.reduceat(values, starts)
    records["latest_value"] = values[latest]
    records["latest_hour"], records["latest_offset"] = np.divmod(latest_us, HOUR_US)
    return records


def _split_cells(owners: Integers, bins: Integers, counts: Integers, size: int) -> list[bytes]:
    """Return the entries of each of `size` sketches."""
    entries, sizes = encode_cells(owners, bins, counts, size)
    packed = entries.tobytes()
    bounds = np.cumsum(sizes * entries.itemsize).tolist()
    return [packed[begin:end] for begin, end in zip([0, *bounds], bounds, strict=False)]


def fold_few(points: Sequence[tuple[int, float, int]]) -> list[MinuteFold]:
    """Return the folds of a few points of one type, like `fold`.

    Args:
        points: The timestamp in µs, the value and the number of the series of each point.
    """
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
    entries = b"".join([encode_one(find_bin(value)).to_bytes(4, "little") for _, value, _ in points])
    rollup = Rollup.from_points([(timestamp, value) for timestamp, value, _ in points])
    return MinuteFold(minute, packed, rollup.encode(), entries)
