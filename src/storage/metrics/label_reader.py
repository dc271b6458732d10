"""Summaries by labels, from blocks of series and from the points that no block has yet."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt
import orjson

from src.analytics.rollup import Integers, Rollup
from src.analytics.series_block import SeriesBlock
from src.analytics.sketch import LogBinSketch
from src.analytics.window import HOUR_US, Window
from src.services.errors import StorageUnavailableError
from src.services.metrics.ingest import Aggregate
from src.services.metrics.labels import MAX_GROUPS, Group, Groups, LabelQuery
from src.storage.metrics.layout import key_of
from src.storage.metrics.series_dictionary import SeriesDictionary
from src.storage.metrics.series_folder import decode_all_block, decode_hour_block, decode_points
from src.storage.metrics.window_reader import WindowReader
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import load_script

READ_TIMEOUT_SECONDS = 5.0
MAX_ATTEMPTS = 5
"""How often a read is repeated whose series change meanwhile."""

NO_DICTIONARY = b"0"
"""The version of the series dictionary of a type without labels."""

_EMPTY = Aggregate(Rollup.empty(), LogBinSketch.of([]))


class LabelReader:
    """Reads summaries by labels.

    Args:
        link: To Redis.
        windows: Reads the summaries of types without labels.
        dictionary: Returns the series dictionary of a type, of at least the version that is given.
    """

    def __init__(
        self,
        link: RedisLink,
        windows: WindowReader,
        dictionary: Callable[[str, str | None], Awaitable[SeriesDictionary]],
    ) -> None:
        self._link = link
        self._windows = windows
        self._dictionary = dictionary
        self._script = load_script("series_read", "series_points")

    async def groups(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        """Summarize the series of `metric_type` that match `query`, group by group.

        Args:
            metric_type: The type.
            window: What to summarize; None is all points.
            query: Which series, and how they are grouped. Without `group_by` there is exactly one group.

        Raises:
            StorageUnavailableError: Redis is unavailable, or the series change too fast to be read.
        """
        arguments: list[Argument] = [key_of(metric_type, ""), *_hours_of(window)]
        for _ in range(MAX_ATTEMPTS):
            version, all_block, *hours = await self._link.run(
                self._script, [key_of(metric_type, "u")], arguments, timeout_seconds=READ_TIMEOUT_SECONDS
            )
            if version == NO_DICTIONARY:
                return await self._unlabelled(metric_type, window, query)
            dictionary = await self._dictionary(metric_type, version.decode())
            if dictionary.version == version.decode():
                return await asyncio.to_thread(_groups, dictionary, window, query, all_block, hours)
        raise StorageUnavailableError("the series of this type are changing too fast")

    async def _unlabelled(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        """Summarize a type of which no point has labels."""
        aggregate = await self._windows.aggregate(metric_type, window) if query.matches({}) else _EMPTY
        if query.group_by and not aggregate.rollup.count:
            return Groups([], is_truncated=False)
        return Groups([Group({}, aggregate)], is_truncated=False)


def _hours_of(window: Window | None) -> list[Argument]:
    """Return number, first µs and µs after the last of each hour that `window` touches."""
    if window is None or window.end_us == window.start_us:
        return []
    first, stop = window.start_us + 1, window.end_us + 1
    arguments: list[Argument] = []
    for hour in range(first // HOUR_US, (stop - 1) // HOUR_US + 1):
        start = hour * HOUR_US
        arguments += (hour, max(first - start, 0), min(stop - start, HOUR_US))
    return arguments


def _groups(
    dictionary: SeriesDictionary,
    window: Window | None,
    query: LabelQuery,
    all_block: bytes,
    hours: Sequence[tuple[int, bytes, Sequence[Reply]]],
) -> Groups:
    wanted, groups, keys = _numbered_groups(dictionary, query)
    blocks = [decode_all_block(all_block).select(wanted)]
    for hour, stored, points in hours:
        blocks.append(decode_hour_block(stored).select(wanted))
        series, timestamps, values = decode_points(hour, points)
        found = wanted[series]
        if window is not None:
            found &= (timestamps > window.start_us) & (timestamps <= window.end_us)
        blocks.append(SeriesBlock.of_points(series[found], timestamps[found], values[found]))
    block = SeriesBlock.merged(blocks).grouped(groups)
    found_groups = [
        Group(_labels(query, keys[number]), Aggregate(rollup, sketch))
        for number, rollup, sketch in block.select(np.arange(len(keys) or 1) < MAX_GROUPS).aggregates()
    ]
    if not query.group_by:
        return Groups(found_groups or [Group({}, _EMPTY)], is_truncated=False)
    return Groups(found_groups, is_truncated=len(block.series) > MAX_GROUPS)


def _numbered_groups(
    dictionary: SeriesDictionary, query: LabelQuery
) -> tuple[npt.NDArray[np.bool_], Integers, list[tuple[str | None, ...]]]:
    """Return which series match, the number of each one's group, and the label values of the groups."""
    wanted = np.zeros(2**16, dtype=np.bool_)
    groups = np.zeros(2**16, dtype=np.int64)
    key_of_series: dict[int, tuple[str | None, ...]] = {}
    for text, number in dictionary.numbers.items():
        labels = orjson.loads(text) if text else {}
        if query.matches(labels):
            wanted[number] = True
            key_of_series[number] = query.group_of(labels)
    keys = sorted(set(key_of_series.values()), key=lambda key: [value or "" for value in key])
    places = {key: place for place, key in enumerate(keys)}
    for number, key in key_of_series.items():
        groups[number] = places[key]
    return wanted, groups, keys


def _labels(query: LabelQuery, key: tuple[str | None, ...]) -> dict[str, str]:
    return {name: value for name, value in zip(query.group_by, key, strict=True) if value is not None}
