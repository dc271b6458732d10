"""Reads all points of a type in order of time, with bounded memory.

A page consists of complete minutes and is read in one step. The next page begins with the following minute.
So writes and deletions between two pages cause no repeated or skipped points. A minute with more points than
a page is read in pieces.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from src.analytics.columns import POINT_BYTES, POINT_DTYPE
from src.analytics.window import HOUR_US, MINUTE_US
from src.resilience.redis.port import Reply
from src.services.errors import StorageUnavailableError
from src.services.metrics.export import PointPage
from src.services.metrics.labels import LabelFilters, matches
from src.storage.metrics.layout import key_of
from src.storage.metrics.readers.dense_minute import PLACE_BITS, MinuteRewrittenError, read_dense_minute
from src.storage.metrics.series.series_dictionary import SeriesDictionary
from src.storage.metrics.series.series_folder import SeriesPoints
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

PAGE_POINTS = 5_000
"""The number of points in a page. There may be up to twice as many, since the last minute is complete. A
minute with more points is read in pieces."""

YIELDED_POINTS = 500
"""The largest number of points that are yielded at once: about a millisecond of work for the renderer."""

MAX_ATTEMPTS = 20
"""The number of attempts to read a page while its series, or the places of its points, change."""

_FIRST_US, _END_US = -(2**62), 2**62
"""Times before and after all timestamps."""


class _DenseMinute(NamedTuple):
    """A minute that is read in pieces.

    Attributes:
        generation: The generation of the type, which changes when points change their places.
        start_us: The start of the minute, in µs since 1970.
        size: The number of its points outside the head.
        head: The head of its hour.
    """

    generation: bytes
    start_us: int
    size: int
    head: bytes


class _Page(NamedTuple):
    """The result of one round trip.

    Attributes:
        labels: The labels of each series by number.
        points: The points, except those of the dense minute.
        dense: The dense minute after these points, if there is one.
        next_us: The start of the next page, in µs since 1970.
    """

    labels: Mapping[int, str]
    points: SeriesPoints
    dense: _DenseMinute | None
    next_us: int


class ExportReader:
    """Reads all points of a type.

    Args:
        link: The link to Redis.
        dictionary: Returns the series dictionary of a type, in at least the given version.
    """

    def __init__(
        self, link: RedisLink, dictionary: Callable[[str, str | None], Awaitable[SeriesDictionary]]
    ) -> None:
        self._link = link
        self._dictionary = dictionary
        self._script = storage_script("metrics/readers/metrics_export")

    async def export(
        self,
        metric_type: str,
        start_us: int | None = None,
        stop_us: int | None = None,
        filters: LabelFilters | None = None,
    ) -> AsyncIterator[PointPage]:
        """Yield the points of `metric_type`, as `ExportStore.export` describes."""
        first_us = _FIRST_US if start_us is None else start_us
        end_us = _END_US if stop_us is None else stop_us
        attempts = 0
        while first_us < end_us:
            page = await self._read(metric_type, first_us, end_us)
            labels = {number: text for number, text in page.labels.items() if matches(filters or {}, text)}
            for some in _slices(page.points, labels):
                yield some
            if page.dense is not None:
                first_us, has_begun = max(first_us, page.dense.start_us), False
                try:
                    async for points in self._dense_points(metric_type, page.dense, first_us, end_us):
                        has_begun = True
                        for some in _slices(points, labels):
                            yield some
                except MinuteRewrittenError:
                    attempts += 1
                    if has_begun or attempts == MAX_ATTEMPTS:
                        raise StorageUnavailableError(
                            "points of a minute were deleted during the export"
                        ) from None
                    continue
            first_us, attempts = page.next_us, 0

    async def _read(self, metric_type: str, first_us: int, end_us: int) -> _Page:
        hour, offset = divmod(first_us, HOUR_US)
        for _ in range(MAX_ATTEMPTS):
            generation, version, next_hour, next_minute, *hours = await self._link.run(
                self._script,
                [key_of(metric_type, "hours")],
                [key_of(metric_type, ""), hour, offset // MINUTE_US, (end_us - 1) // HOUR_US, PAGE_POINTS],
            )
            dictionary = await self._dictionary(metric_type, version.decode())
            if dictionary.version == version.decode():
                break
        else:
            raise StorageUnavailableError("the series of this type are changing too fast")
        next_us = end_us if next_hour == b"" else next_hour * HOUR_US + next_minute * MINUTE_US
        dense = _dense_minute(generation, hours)
        stop_us = min(end_us, next_us if dense is None else dense.start_us)
        return _Page(dict(dictionary.series()), _decoded(hours, first_us, stop_us), dense, next_us)

    async def _dense_points(
        self, metric_type: str, minute: _DenseMinute, first_us: int, end_us: int
    ) -> AsyncIterator[SeriesPoints]:
        hour_us = minute.start_us // HOUR_US * HOUR_US
        source = _RedisMinute(self._link, metric_type, minute)
        stop_us = min(end_us, minute.start_us + MINUTE_US)
        async for points in read_dense_minute(
            source, minute.head, minute.size, first_us - hour_us, stop_us - hour_us
        ):
            timestamps = (points.keys >> np.uint64(PLACE_BITS)).astype(np.int64) + hour_us
            yield SeriesPoints(points.series, timestamps, points.values)


class _RedisMinute:
    """A `MinuteSource`."""

    def __init__(self, link: RedisLink, metric_type: str, minute: _DenseMinute) -> None:
        self._link = link
        hour, offset = divmod(minute.start_us, HOUR_US)
        self._points = key_of(metric_type, f"r:{hour}:{offset // MINUTE_US}")
        self._days = key_of(metric_type, "d")
        self._generation = minute.generation

    async def read(self, first: int, stop: int) -> bytes:
        """Return the points with indexes from `first` to before `stop`, or fewer at the end."""
        return bytes(
            await self._link.send("GETRANGE", self._points, first * POINT_BYTES, stop * POINT_BYTES - 1)
        )

    async def is_unchanged(self) -> bool:
        """Return whether no point of the type has changed its place since the page was read."""
        return (await self._link.send("HGET", self._days, "generation") or b"") == self._generation


def _dense_minute(generation: bytes, hours: Sequence[Reply]) -> _DenseMinute | None:
    """Return the last minute in a reply of the script if the reply does not contain its points."""
    if not hours:
        return None
    hour, head, minutes = hours[-3:]
    if not minutes or minutes[-1]:
        return None
    return _DenseMinute(generation, hour * HOUR_US + minutes[-3] * MINUTE_US, minutes[-2], head)


def _decoded(hours: Sequence[Reply], first_us: int, stop_us: int) -> SeriesPoints:
    """Return the points in a reply of the script from `first_us` to before `stop_us`, in order."""
    strings: list[bytes] = []
    starts: list[int] = []
    for hour, head, minutes in zip(*(iter(hours),) * 3, strict=True):
        strings += (head, *minutes[2::3])
        starts += [hour * HOUR_US] * (len(strings) - len(starts))
    table = np.frombuffer(b"".join(strings), dtype=POINT_DTYPE)
    sizes = [len(string) // POINT_BYTES for string in strings]
    timestamps = np.repeat(np.array(starts, dtype=np.int64), sizes) + table["offset"]
    found = np.flatnonzero((timestamps >= first_us) & (timestamps < stop_us))
    # The strings are in order of arrival, with the head first, so a stable sort by time is enough.
    found = found[np.argsort(timestamps[found], kind="stable")]
    return SeriesPoints(table["series"], timestamps, table["value"]).chosen(found)


def _slices(points: SeriesPoints, labels: Mapping[int, str]) -> Iterator[PointPage]:
    """Yield the points whose series are in `labels`, at most `YIELDED_POINTS` at once."""
    for first in range(0, len(points.values), YIELDED_POINTS):
        some = points.chosen(slice(first, first + YIELDED_POINTS))
        numbers = set(some.series.tolist())
        if not numbers <= labels.keys():
            some = some.chosen(np.isin(some.series, list(numbers & labels.keys())))
        texts = [labels[number] for number in some.series.tolist()]
        yield PointPage(some.timestamps_us.tolist(), some.values.tolist(), texts)
