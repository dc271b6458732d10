"""Points summed up by window, out of the rollups and the points that the metric store writes.

Where a window holds a whole minute, hour or day, its rollup is read, the longest that fits; where it cuts a
minute, the points themselves. Both are read a portion at a time, so that neither Redis nor the event loop is
kept from others for long, and no more than a bound of each. What retention has let go of counts as nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from src.analytics.fold import ROLLUP_STEPS_US
from src.analytics.rollup import Rollup
from src.analytics.window import Span, Window
from src.services.metrics.series import SeriesError
from src.storage.metrics.layout import RawRange, key_of, points_of, raw_bounds, raw_ranges, rollup_place
from src.storage.redis.connection import Argument
from src.storage.redis.link import RedisLink

MAX_ROLLUPS = 120_000
"""Rollups read for one answer, at most: 2,000 windows of any whole number of minutes below an hour."""
ROLLUPS_AT_ONCE = 2_000

MAX_POINTS = 50_000
"""Points read for one answer, at most. A single minute may have millions."""
POINTS_AT_ONCE = 5_000
"""In one round trip, unless it is of one window alone."""

FEW_RECORDS = 5
"""Rollups in one step of a usual chart. What so many at the most come to is remembered."""


class RedisSeriesStore:
    """A `SeriesStore` in Redis.

    Args:
        link: To Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def rollups(self, metric_type: str, windows: Sequence[Window]) -> list[Rollup]:
        """Return what the points of `metric_type` in each of `windows` come to."""
        spans = _spans(tuple(windows))
        _refuse_too_many_rollups(spans)
        rollups = [Rollup.empty()] * len(windows)
        await self._merge_points(metric_type, spans, rollups)
        await self._merge_rollups(metric_type, spans, rollups)
        return rollups

    async def _merge_points(
        self, metric_type: str, spans: Iterable[tuple[int, Span]], into: list[Rollup]
    ) -> None:
        ranges = [
            (number, raw)
            for number, span in spans
            if span.step_us == 1
            for raw in raw_ranges(span.first, span.stop)
        ]
        if not ranges:
            return
        counts = await self._link.send_all([("ZCOUNT", *raw_bounds(metric_type, raw)) for _, raw in ranges])
        _refuse_too_many_points(sum(counts))
        for portion in _portions(zip(ranges, counts, strict=True)):
            replies = await self._link.send_all(
                [("ZRANGEBYSCORE", *raw_bounds(metric_type, raw), "WITHSCORES") for _, raw in portion]
            )
            for (number, raw), reply in zip(portion, replies, strict=True):
                into[number] = into[number].merge(Rollup.of_entries(points_of(raw.hour, reply)))

    async def _merge_rollups(
        self, metric_type: str, spans: Iterable[tuple[int, Span]], into: list[Rollup]
    ) -> None:
        buckets = (
            (number, *rollup_place(span.step_us, bucket)[:2])
            for number, span in spans
            if span.step_us > 1
            for bucket in range(span.first, span.stop)
        )
        while portion := list(islice(buckets, ROLLUPS_AT_ONCE)):
            fields: defaultdict[str, list[Argument]] = defaultdict(list)
            numbers: defaultdict[str, list[int]] = defaultdict(list)
            for number, partition, field in portion:
                fields[partition].append(field)
                numbers[partition].append(number)
            replies = await self._link.send_all(
                [("HMGET", key_of(metric_type, partition), *some) for partition, some in fields.items()]
            )
            records: defaultdict[int, list[bytes]] = defaultdict(list)
            for some, reply in zip(numbers.values(), replies, strict=True):
                for number, record in zip(some, reply, strict=True):
                    if record is not None:
                        records[number].append(record)
            for number, found in records.items():
                into[number] = into[number].merge(_decode(found))


@lru_cache(maxsize=8)  # whatever their type, charts of one length ask for the same until a step is over
def _spans(windows: tuple[Window, ...]) -> tuple[tuple[int, Span], ...]:
    return tuple(
        (number, span) for number, window in enumerate(windows) for span in window.cover(ROLLUP_STEPS_US)
    )


def _decode(records: Sequence[bytes]) -> Rollup:
    return (_decode_few if len(records) <= FEW_RECORDS else Rollup.decode)(*records)


_decode_few = lru_cache(maxsize=4096)(Rollup.decode)  # of a chart that is drawn again, most is as it was


def _refuse_too_many_rollups(spans: Iterable[tuple[int, Span]]) -> None:
    count = sum(span.stop - span.first for _, span in spans if span.step_us > 1)
    if count > MAX_ROLLUPS:
        raise SeriesError(
            "step",
            f"{count} minutes, hours and days would have to be read, and {MAX_ROLLUPS} are the most: "
            "ask for a shorter time, or for steps of whole hours or days",
        )


def _refuse_too_many_points(count: int) -> None:
    if count > MAX_POINTS:
        raise SeriesError(
            "step",
            f"{count} points lie where a step ends within a minute, and {MAX_POINTS} are the most that are "
            "read: let `from`, `to` and `step` be whole minutes, or ask for a shorter time",
        )


def _portions(counted: Iterable[tuple[tuple[int, RawRange], int]]) -> Iterator[list[tuple[int, RawRange]]]:
    """Yield the ranges that have points, as many at a time as have `POINTS_AT_ONCE` or hardly more."""
    portion, points = [], 0
    for item, count in counted:
        if count:
            portion.append(item)
            points += count
        if points >= POINTS_AT_ONCE:
            yield portion
            portion, points = [], 0
    if portion:
        yield portion
