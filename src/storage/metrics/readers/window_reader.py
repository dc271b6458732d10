"""Summaries of windows, from records and sketches of whole buckets, and from points at the edges."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from src.analytics.aggregate import Aggregate
from src.analytics.columns import POINT_BYTES, POINT_DTYPE
from src.analytics.readings import Reading, readings
from src.analytics.rollup import RECORD_DTYPE, Floats, Integers, Rollup
from src.analytics.sketch import LogBinSketch, decode_entries, find_bins, sum_by_bin
from src.analytics.window import MINUTE_US, Window
from src.resilience.redis.port import Argument, Reply
from src.services.metrics.series import SeriesError
from src.storage.metrics.layout import SKETCH_HEADER, key_of
from src.storage.redis.connection import Command
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

READINGS_AT_ONCE = 30
"""The number of days and hours that are read in one round trip. A window of a day needs fewer."""

LOOP_BYTES = 500_000
"""Longer replies are merged in a thread, so that they do not block the event loop."""

MAX_READINGS = 120_000
"""The largest number of minutes, hours and days in one answer: enough for 2,000 windows below an hour."""

MAX_POINTS = 50_000
"""The largest number of points that are read for windows that end within a minute."""

_WHOLE = -1


class WindowReader:
    """Reads the summaries of windows of one type.

    Args:
        link: The link to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._read = storage_script("metrics/readers/metrics_read")
        self._read_all = storage_script("metrics/readers/read_all")

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        """Summarize the points of `metric_type` in `window`, or all points if `window` is None."""
        if window is None:
            return await self._aggregate_all(metric_type)
        (aggregate,) = await self.aggregates(metric_type, [window])
        return aggregate

    async def _aggregate_all(self, metric_type: str) -> Aggregate:
        """Summarize all points of `metric_type`."""
        commands: list[Command] = [
            ("HGET", key_of(metric_type, "d"), "all"),
            ("GET", key_of(metric_type, "p:all")),
        ]
        arguments: list[Argument] = [word for command in commands for word in (len(command), *command)]
        record, sketch = await self._link.run(self._read_all, [key_of(metric_type, "d")], arguments)
        rollup = Rollup.from_records(record or b"")
        bins, counts = decode_entries((sketch or b"")[SKETCH_HEADER.size :])
        return Aggregate(rollup, LogBinSketch(bins, counts, rollup.minimum, rollup.maximum))

    async def aggregates(self, metric_type: str, windows: Sequence[Window]) -> list[Aggregate]:
        """Summarize the points of `metric_type` in each of `windows`.

        Windows that are read in one round trip are consistent: each write is in all of them or in none. A
        single window of up to a day is always read in one round trip.

        Args:
            metric_type: The type.
            windows: Windows in order of time that do not overlap.

        Raises:
            SeriesError: Too many rollups or points would have to be read.
            StorageUnavailableError: Redis is unavailable.
        """
        wanted = list(islice(readings(windows), MAX_READINGS + 1))
        _refuse_too_many(wanted)
        await self._refuse_too_many_points(metric_type, wanted)
        parts = _Parts(windows)
        for first in range(0, len(wanted), READINGS_AT_ONCE):
            some = wanted[first : first + READINGS_AT_ONCE]
            arguments: list[Argument] = [key_of(metric_type, "")]
            for reading in some:
                arguments += reading
            replies = await self._link.run(self._read, [key_of(metric_type, "d")], arguments)
            if sum(len(item) for reply in replies for item in reply if isinstance(item, bytes)) > LOOP_BYTES:
                await asyncio.to_thread(parts.add_all, some, replies)
            else:
                parts.add_all(some, replies)
        return parts.aggregates()

    async def _refuse_too_many_points(self, metric_type: str, wanted: Sequence[Reading]) -> None:
        count = 0
        for reading in (reading for reading in wanted if reading.detail == "points"):
            head, minutes = (
                key_of(metric_type, f"r:{reading.number}"),
                key_of(metric_type, f"n:{reading.number}"),
            )
            length, records = await self._link.send_all([("STRLEN", head), ("GET", minutes)])
            first, stop = reading.first_us // MINUTE_US, -(-reading.stop_us // MINUTE_US)
            counts = np.frombuffer(records or b"", dtype=RECORD_DTYPE)["count"][first:stop]
            count += length // POINT_BYTES + int(counts.sum())
            if count > MAX_POINTS:
                raise SeriesError(
                    "step",
                    f"{count} points lie where a step ends within a minute, and {MAX_POINTS} are the most "
                    "that are read: let `from`, `to` and `step` be whole minutes, or request a shorter time",
                )


def _refuse_too_many(wanted: Sequence[Reading]) -> None:
    count = sum(1 if reading.detail in {"day", "hour"} else 60 for reading in wanted)
    if count > MAX_READINGS:
        raise SeriesError(
            "step",
            f"more than {MAX_READINGS} minutes, hours and days would have to be read: request a shorter "
            "time, or steps of whole hours or days",
        )


class Item(NamedTuple):
    """The result of `metrics_read.lua` for a day, an hour or some minutes.

    Attributes:
        minute: The first minute, or `_WHOLE` for an hour or a day.
        records: The rollup records; empty if `points` contains all points.
        entries: The entries of the sketches of `records`.
        points: The points in `records` that are not in `entries`.
    """

    minute: int
    records: bytes
    entries: bytes
    points: bytes


def decode_items(reply: Sequence[Reply]) -> Iterator[Item]:
    """Yield the items in the reply to one reading. `reply` begins after the points of the head."""
    rest = iter(reply)
    for minute in rest:
        records, sketches, strings = islice(rest, 3)
        yield Item(minute, records, b"".join(islice(rest, sketches)), b"".join(islice(rest, strings)))


@dataclass(slots=True)
class _WindowParts:
    """The data of one window."""

    head: list[tuple[Integers, Floats]] = field(default_factory=list)
    """Points of heads. They arrived before other points with equal timestamps."""
    records: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    """Entries of the sketches of `records`."""
    left_out: list[bytes] = field(default_factory=list)
    """Points in `records` that are not in `entries`."""
    edges: list[tuple[Integers, Floats]] = field(default_factory=list)

    def aggregate(self) -> Aggregate:
        """Return the summary of all parts."""
        head, edges = _joined(self.head), _joined(self.edges)
        records = Rollup.from_records(b"".join(self.records))
        rollup = Rollup.merge((Rollup.from_arrays(*head), records, Rollup.from_arrays(*edges)))
        bins, counts = decode_entries(b"".join(self.entries))
        left_out = np.frombuffer(b"".join(self.left_out), dtype=POINT_DTYPE)["value"]
        more = find_bins(np.concatenate((head[1], edges[1], left_out)))
        bins, counts = sum_by_bin(np.concatenate((bins, more)), np.concatenate((counts, np.ones_like(more))))
        return Aggregate(rollup, LogBinSketch(bins, counts, rollup.minimum, rollup.maximum))


class _Parts:
    """The data of all windows."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._starts = np.array([window.start_us + 1 for window in windows], dtype=np.int64)
        self._starts_list = self._starts.tolist()
        self._stops = np.array([window.end_us + 1 for window in windows], dtype=np.int64)
        self._windows = [_WindowParts() for _ in windows]

    def add_all(self, wanted: Sequence[Reading], replies: Sequence[Sequence[Reply]]) -> None:
        """Add the replies to `wanted`."""
        for reading, reply in zip(wanted, replies, strict=True):
            self._add(reading, reply)

    def aggregates(self) -> list[Aggregate]:
        """Return the summary of each window."""
        return [window.aggregate() for window in self._windows]

    def _add(self, reading: Reading, reply: Sequence[Reply]) -> None:
        head, *rest = reply
        for window, timestamps, values in self._split(reading.start_us, head):
            window.head.append((timestamps, values))
        for minute, records, entries, points in decode_items(rest):
            if not records:
                for window, timestamps, values in self._split(reading.start_us, points):
                    window.edges.append((timestamps, values))
                continue
            start_us = reading.start_us + (0 if minute == _WHOLE else minute * MINUTE_US)
            window = self._windows[bisect_right(self._starts_list, start_us) - 1]
            window.records.append(records)
            window.entries.append(entries)
            window.left_out.append(points)

    def _split(self, start_us: int, points: bytes) -> Iterator[tuple[_WindowParts, Integers, Floats]]:
        """Yield each window, with the timestamps and values of those `points` of an hour that lie in it."""
        if not points:
            return
        table = np.frombuffer(points, dtype=POINT_DTYPE)
        timestamps = table["offset"].astype(np.int64) + start_us
        if len(self._windows) == 1:
            found = (timestamps >= self._starts[0]) & (timestamps < self._stops[0])
            yield self._windows[0], timestamps[found], table["value"][found]
            return
        numbers = self._starts.searchsorted(timestamps, side="right") - 1
        numbers[timestamps >= self._stops[numbers]] = -1  # numbers that are -1 stay -1
        for number in np.unique(numbers).tolist():
            if number >= 0:
                found = numbers == number
                yield self._windows[number], timestamps[found], table["value"][found]


def _joined(parts: Sequence[tuple[Integers, Floats]]) -> tuple[Integers, Floats]:
    if not parts:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    if len(parts) == 1:
        return parts[0]
    timestamps, values = zip(*parts, strict=True)
    return np.concatenate(timestamps), np.concatenate(values)
