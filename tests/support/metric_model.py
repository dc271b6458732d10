"""The metric store as plainly as it can be said: keep every point, look at all of them each time."""

import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

import orjson

from src.analytics.aggregate import Aggregate
from src.analytics.columns import PointColumns, columns_of
from src.analytics.points import Point
from src.analytics.rollup import Rollup
from src.analytics.sketch import LogBinSketch
from src.analytics.window import Window
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
from src.services.metrics.labels import LabelFilters, matches


class MemoryMetricStore:
    """A `MetricStore` in memory, and a `SeriesStore`: the oracle of the others, and what a test may need."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._points: list[StoredPoint] = []
        self._idempotency: dict[str, tuple[str, float]] = {}

    async def add(self, batch: Sequence[PointColumns], idempotency: Idempotency | None = None) -> WriteResult:
        if idempotency is not None:
            fingerprint, kept_until = self._idempotency.get(idempotency.key, ("", -1.0))
            if kept_until > self._clock.monotonic():
                if fingerprint != idempotency.fingerprint:
                    raise IdempotencyKeyReusedError("the idempotency key came before with another request")
                return WriteResult(is_new=False, rejected=[])
            self._idempotency[idempotency.key] = idempotency.fingerprint, self._clock.monotonic() + 24 * 3600
        for columns in batch:
            labels = columns.labels or [""] * len(columns.values)
            for timestamp, value, text in zip(
                columns.timestamps_us.tolist(), columns.values.tolist(), labels, strict=True
            ):
                point = Point(columns.type, timestamp, value, text)
                self._points.append(StoredPoint(point, len(self._points) + 1))
        return WriteResult(is_new=True, rejected=[])

    async def add_one(self, point: Point) -> PointRejection | None:
        await self.add(columns_of([point]))
        return None

    async def aggregate(self, metric_type: str, window: Window | None) -> Aggregate:
        some = [stored for stored in self._of(metric_type) if window is None or _is_in(window, stored.point)]
        if not some:
            return Aggregate(Rollup.empty(), LogBinSketch.from_values([]))
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

    async def aggregates(self, metric_type: str, windows: Sequence[Window]) -> list[Aggregate]:
        return [await self.aggregate(metric_type, window) for window in windows]

    async def newest(
        self, metric_type: str | None, limit: int, before: Position | None = None
    ) -> list[StoredPoint]:
        some = self._points if metric_type is None else self._of(metric_type)
        if before is not None:
            some = [
                stored
                for stored in some
                if _place(stored) < (before.timestamp_us, before.type, before.arrival)
            ]
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
            overviews.append(TypeOverview(name, len(some), latest.timestamp_us, latest.value))
        return sorted(overviews, key=lambda overview: (-overview.latest_timestamp_us, overview.type))

    async def series(self, metric_type: str) -> list[tuple[Mapping[str, str], int]]:
        counts = Counter(stored.point.labels for stored in self._of(metric_type))
        return [(orjson.loads(text) if text else {}, count) for text, count in counts.items()]

    def _of(self, metric_type: str) -> list[StoredPoint]:
        return [stored for stored in self._points if stored.point.type == metric_type]


def _is_in(window: Window, point: Point) -> bool:
    return window.start_us < point.timestamp_us <= window.end_us


def _place(stored: StoredPoint) -> tuple[int, str, int]:
    return stored.point.timestamp_us, stored.point.type, stored.arrival


def memory_admit_and_add(limiter: RateLimiter) -> AdmitAndAdd:
    """Return an `AdmitAndAdd` that only decides, so that its caller stores the point."""

    async def admit_and_add(key: str, point: Point) -> tuple[Decision, StoreResult]:
        return await limiter.hit(key), False

    return admit_and_add
