"""The metric store as plainly as it can be said: keep every point, look at all of them each time."""

import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

import orjson

from src.analytics.aggregate import Aggregate
from src.analytics.columns import PointColumns, columns_of
from src.analytics.points import Point
from src.analytics.rollup import Rollup
from src.analytics.sketch import LogBinSketch
from src.analytics.window import DAY_US, HOUR_US, Window
from src.resilience.clock import Clock
from src.resilience.rate_limiter.store import Decision, RateLimiter
from src.services.metrics.export import PointPage
from src.services.metrics.ingest import (
    AdmitAndAdd,
    Idempotency,
    IdempotencyKeyReusedError,
    PointRejection,
    Position,
    StoredPoint,
    StoreResult,
    TypeOverview,
    WriteResult,
)
from src.services.metrics.labels import Group, Groups, LabelFilters, LabelQuery, matches
from src.storage.metrics.store import DEFAULT_CAPS, Caps


class _WriteRecord(NamedTuple):
    """What is kept of a write with an idempotency key."""

    fingerprint: str
    kept_until_us: int
    rejected: Sequence[PointRejection]


class MemoryMetricStore:
    """A `MetricStore`, `SeriesStore` and `DeletableStore` in memory: the oracle of the others."""

    def __init__(self, clock: Clock, caps: Caps = DEFAULT_CAPS) -> None:
        self._clock = clock
        self._caps = caps
        self._points: list[StoredPoint] = []
        self._arrivals = 0
        self._idempotency: dict[str, _WriteRecord] = {}

    def copy(self) -> "MemoryMetricStore":
        """Return a store with the same points and idempotency keys."""
        copy = MemoryMetricStore(self._clock, self._caps)
        copy._points, copy._arrivals = list(self._points), self._arrivals
        copy._idempotency = dict(self._idempotency)
        return copy

    async def add(self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None) -> WriteResult:
        now_us = await self.now_us()
        if idempotency is not None and (record := self._idempotency.get(idempotency.key)):
            record = record._replace(kept_until_us=min(record.kept_until_us, now_us + DAY_US))
            self._idempotency[idempotency.key] = record
            if record.kept_until_us > now_us:
                if record.fingerprint != idempotency.fingerprint:
                    raise IdempotencyKeyReusedError("the idempotency key came before with another request")
                return WriteResult(is_new=False, rejected=record.rejected)
        rejected: list[PointRejection] = []
        is_stored = False
        for columns in batch:
            labels = columns.labels or [""] * len(columns.values)
            rows = zip(
                columns.indexes.tolist(),
                columns.timestamps_us.tolist(),
                columns.values.tolist(),
                labels,
                strict=True,
            )
            for index, timestamp, value, text in rows:
                if field := self._exceeded_cap(columns.type, text):
                    rejected.append(PointRejection(index, field, "the cap is reached"))
                    continue
                self._arrivals += 1
                self._points.append(StoredPoint(Point(columns.type, timestamp, value, text), self._arrivals))
                is_stored = True
        if idempotency is not None and is_stored:
            self._idempotency[idempotency.key] = _WriteRecord(
                idempotency.fingerprint, now_us + DAY_US, rejected
            )
        return WriteResult(is_new=True, rejected=rejected)

    def _exceeded_cap(self, metric_type: str, labels: str) -> str | None:
        """Return the field of a point that would create one type or one series too many."""
        types = {stored.point.type for stored in self._points}
        if metric_type not in types:
            return "type" if len(types) >= self._caps.types else None
        series = {stored.point.labels for stored in self._of(metric_type)} - {""}
        if labels and labels not in series and len(series) >= self._caps.series_per_type:
            return "labels"
        return None

    async def add_one(self, point: Point) -> PointRejection | None:
        rejected = (await self.add(columns_of([point]))).rejected
        return rejected[0] if rejected else None

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        return _aggregate(self._in(metric_type, window))

    async def aggregates(self, metric_type: str, windows: Sequence[Window]) -> list[Aggregate]:
        return [await self.aggregate(metric_type, window) for window in windows]

    async def groups(self, metric_type: str, window: Window | None, query: LabelQuery) -> Groups:
        groups: dict[tuple[str | None, ...], list[StoredPoint]] = {} if query.group_by else {(): []}
        for stored in self._in(metric_type, window):
            labels = labels_of(stored.point)
            if query.matches(labels):
                groups.setdefault(query.group_values(labels), []).append(stored)
        return Groups(
            [
                Group(
                    {n: value for n, value in zip(query.group_by, key, strict=True) if value is not None},
                    _aggregate(some),
                )
                for key, some in sorted(groups.items(), key=lambda item: [value or "" for value in item[0]])
            ]
        )

    async def groups_by_window(
        self, metric_type: str, windows: Sequence[Window], query: LabelQuery
    ) -> list[Groups]:
        return [await self.groups(metric_type, window, query) for window in windows]

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        some = self._of(metric_type)
        if not any(stored.point.labels for stored in some):
            return []
        counts = Counter(stored.point.labels for stored in some)
        return [(orjson.loads(text) if text else {}, count) for text, count in counts.items()]

    async def newest(
        self,
        metric_type: str | None,
        limit: int,
        before: Position | None = None,
        filters: LabelFilters | None = None,
    ) -> list[StoredPoint]:
        some = self._points if metric_type is None else self._of(metric_type)
        if before is not None:
            place = before.timestamp_us, before.type, before.arrival
            some = [stored for stored in some if _place(stored) < place]
        some = [stored for stored in some if matches(filters or {}, stored.point.labels)]
        return sorted(some, key=_place, reverse=True)[:limit]

    async def export(
        self,
        metric_type: str,
        start_us: int | None = None,
        stop_us: int | None = None,
        filters: LabelFilters | None = None,
    ) -> AsyncIterator[PointPage]:
        for point in (stored.point for stored in sorted(self._of(metric_type), key=_place)):
            is_early = start_us is not None and point.timestamp_us < start_us
            is_late = stop_us is not None and point.timestamp_us >= stop_us
            if not (is_early or is_late) and matches(filters or {}, point.labels):
                yield PointPage([point.timestamp_us], [point.value], [point.labels])

    async def types(self) -> list[TypeOverview]:
        overviews = []
        for name in {stored.point.type for stored in self._points}:
            some = self._of(name)
            latest = max(some, key=_place).point
            series = max(1, len({stored.point.labels for stored in some} - {""}))
            overviews.append(TypeOverview(name, len(some), latest.timestamp_us, latest.value, series))
        return sorted(overviews, key=lambda overview: (-overview.latest_timestamp_us, overview.type))

    async def delete(
        self, metric_type: str, filters: LabelFilters | None = None, before_us: int | None = None
    ) -> int:
        kept = [
            stored
            for stored in self._points
            if stored.point.type != metric_type
            or not matches(filters or {}, stored.point.labels)
            or (before_us is not None and stored.point.timestamp_us >= before_us)
        ]
        deleted = len(self._points) - len(kept)
        self._points = kept
        return deleted

    async def oldest(self) -> list[tuple[str, int]]:
        return [
            (name, min(stored.point.timestamp_us for stored in self._of(name)) // HOUR_US * HOUR_US)
            for name in {stored.point.type for stored in self._points}
        ]

    async def now_us(self) -> int:
        return round(self._clock.now() * 1e6)

    def _of(self, metric_type: str) -> list[StoredPoint]:
        return [stored for stored in self._points if stored.point.type == metric_type]

    def _in(self, metric_type: str, window: Window | None) -> list[StoredPoint]:
        return [stored for stored in self._of(metric_type) if window is None or _is_in(window, stored.point)]


class MemoryRetention:
    """A `RetentionStore` in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rules: dict[str, int] = {}
        self._turn_ends_at = 0.0

    async def rules(self) -> Mapping[str, int]:
        return dict(self._rules)

    async def set_rule(self, pattern: str, seconds: int, max_rules: int) -> bool:
        if pattern not in self._rules and len(self._rules) >= max_rules:
            return False
        self._rules[pattern] = seconds
        return True

    async def remove_rule(self, pattern: str) -> bool:
        return self._rules.pop(pattern, None) is not None

    async def take_turn(self, seconds: float) -> bool:
        if self._clock.monotonic() < self._turn_ends_at:
            return False
        self._turn_ends_at = self._clock.monotonic() + seconds
        return True


def labels_of(point: Point) -> Mapping[str, str]:
    """Return the labels of a point."""
    found: Mapping[str, str] = orjson.loads(point.labels) if point.labels else {}
    return found


def _aggregate(some: Sequence[StoredPoint]) -> Aggregate:
    if not some:
        return Aggregate.empty()
    values = [stored.point.value for stored in some]
    latest = max(some, key=_place)
    try:
        total = math.fsum(values)
    except OverflowError:
        total = math.nan
    rollup = Rollup(
        len(some),
        total,
        0.0,
        min(values),
        max(values),
        latest.point.timestamp_us,
        latest.point.value,
    )
    return Aggregate(rollup, LogBinSketch.from_values(values))


def _is_in(window: Window, point: Point) -> bool:
    return window.start_us < point.timestamp_us <= window.end_us


def _place(stored: StoredPoint) -> tuple[int, str, int]:
    return stored.point.timestamp_us, stored.point.type, stored.arrival


def memory_admit_and_add(limiter: RateLimiter) -> AdmitAndAdd:
    """Return an `AdmitAndAdd` that only decides, so that its caller stores the point."""

    async def admit_and_add(key: str, point: Point) -> tuple[Decision, StoreResult]:
        return await limiter.hit(key), False

    return admit_and_add
