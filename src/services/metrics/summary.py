"""The read-through summary.

Rollups and reference data are rendered to bytes once; those bytes are cached, and sent as they are.
"""

import asyncio
from functools import partial
from typing import Literal, get_args

import orjson

from src.analytics.points import format_timestamp
from src.analytics.window import Window
from src.resilience.cache import Answer, CacheRead, ReadThroughCache
from src.resilience.clock import Clock
from src.services.external_service import ExternalService
from src.services.metrics.ingest import Aggregate, MetricStore

Period = Literal["all", "daily", "hourly"]

WINDOW_SECONDS: dict[Period, int] = {"daily": 24 * 3600, "hourly": 3600}
"""Length of a period's rolling window; "all" has none."""


def cache_key(metric_type: str, period: str) -> str:
    """Return the cache key of a summary."""
    return f"summary:{metric_type}:{period}"


class SummaryRead:
    """The read of a summary, begun: the cache is asked at once, and the rest waits for `result`.

    Args:
        read: The read of the cache.
    """

    __slots__ = ("_read",)

    def __init__(self, read: CacheRead) -> None:
        self._read = read

    async def result(self) -> Answer:
        """Return the summary.

        Raises:
            CircuitOpenError: The external service's breaker is open and no summary is young enough.
            ExternalServiceUnavailableError: It failed, likewise.
            StorageUnavailableError: The store is unavailable, or refuses and no summary is young enough.
        """
        answer = await self._read.result()
        if answer.outcome != "stale":
            return answer
        return Answer(_degraded(answer.body), answer.outcome, answer.age_seconds, answer.error)

    async def cancel(self) -> None:
        """Leave the summary unread. Nothing has to be stopped: what was asked of Redis is on its way."""


class SummaryService:
    """Summaries of metric types.

    Args:
        store: Where the points are.
        cache: Keeps rendered summaries, and computes each once for all who ask at the same time. It must
            count `CircuitOpenError`, `ExternalServiceUnavailableError` and `StorageRefusedError` among the
            errors it answers with a stale summary.
        external_service: Knows what a type is.
        clock: Where windows end.
    """

    def __init__(
        self, store: MetricStore, cache: ReadThroughCache, external_service: ExternalService, clock: Clock
    ) -> None:
        self._store = store
        self._cache = cache
        self._external_service = external_service
        self._clock = clock

    def begin(self, metric_type: str, period: Period, *, refresh: bool = False) -> SummaryRead:
        """Begin to read a summary: cached, computed when it is finished, or the last good one.

        Args:
            metric_type: What to summarize.
            period: Over which window.
            refresh: Compute the summary even where it is cached.
        """
        compute = partial(self._compute, metric_type, period)
        return SummaryRead(self._cache.begin(cache_key(metric_type, period), compute, refresh=refresh))

    async def forget(self, metric_types: set[str]) -> None:
        """Drop every cached summary of `metric_types`; the last good ones stay for a time of need."""
        periods = get_args(Period)
        await self._cache.invalidate([cache_key(name, period) for name in metric_types for period in periods])

    async def _compute(self, metric_type: str, period: Period) -> bytes:
        now_us = round(self._clock.now() * 1e6)
        seconds = WINDOW_SECONDS.get(period)
        window = None if seconds is None else Window.rolling(now_us, seconds)
        try:
            async with asyncio.TaskGroup() as group:
                aggregate = group.create_task(self._store.aggregate(metric_type, window))
                reference = group.create_task(self._external_service.reference(metric_type))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the one that ended the other
        return _render(metric_type, period, aggregate.result(), reference.result(), now_us)


def _render(
    metric_type: str, period: Period, aggregate: Aggregate, reference: object | None, now_us: int
) -> bytes:
    rollup, sketch = aggregate.rollup, aggregate.sketch
    some = rollup.count > 0
    return orjson.dumps({
        "type": metric_type,
        "period": period,
        "count": rollup.count,
        "average_value": rollup.average,
        "min_value": rollup.minimum if some else None,
        "max_value": rollup.maximum if some else None,
        "latest_value": rollup.latest_value if some else None,
        "sum": rollup.total,
        "p50": sketch.quantile(0.50) if some else None,
        "p95": sketch.quantile(0.95) if some else None,
        "p99": sketch.quantile(0.99) if some else None,
        "latest_timestamp": format_timestamp(rollup.latest_us) if some else None,
        "reference": reference,
        "degraded": False,
        "generated_at": format_timestamp(now_us),
    })  # fmt: skip


def _degraded(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body) | {"degraded": True})
