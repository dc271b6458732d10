"""The read-through summary.

Rollups and reference data are rendered to bytes once; those bytes are cached, and sent as they are.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, Protocol, get_args

import orjson

from src.analytics.aggregate import Aggregate
from src.analytics.points import format_timestamp
from src.analytics.window import Window
from src.resilience.cache.policy import Answer, CacheRead, ReadThroughCache
from src.resilience.clock import Clock
from src.services.external_service import ExternalService
from src.services.metrics.ingest import MetricStore
from src.services.metrics.labels import ALL_SERIES, Group, Groups, LabelQuery

Period = Literal["all", "daily", "hourly"]

WINDOW_SECONDS: dict[Period, int] = {"daily": 24 * 3600, "hourly": 3600}
"""Length of a period's rolling window; "all" has none."""


def cache_key(metric_type: str, period: str, labels: LabelQuery = ALL_SERIES) -> str:
    """Return the cache key of a summary."""
    key = f"summary:{metric_type}:{period}"
    if labels == ALL_SERIES:
        return key
    filters = {name: sorted(values) for name, values in labels.filters.items()}
    text = orjson.dumps([filters, labels.group_by], option=orjson.OPT_SORT_KEYS)
    return f"{key}:{hashlib.blake2b(text, digest_size=12).hexdigest()}"


class SummaryIndex(Protocol):
    """Which summaries by labels are cached."""

    async def add(self, metric_type: str, key: str) -> None:
        """Note that a summary of `metric_type` is going to be cached under `key`."""
        ...

    async def take(self, metric_type: str) -> Sequence[str]:
        """Return the keys of the cached summaries of `metric_type`, and forget them."""
        ...


class SummaryRead:
    """The read of a summary, begun: the cache is asked at once, and the rest waits for `result`.

    Args:
        read: The read of the cache.
    """

    __slots__ = ("_read",)

    def __init__(self, read: CacheRead) -> None:
        self._read = read

    async def result(self) -> Answer:
        """Return the summary, degraded where the external service fails or computing takes long.

        Raises:
            CircuitOpenError: The external service's breaker is open and no summary is young enough.
            ExternalServiceUnavailableError: It failed, likewise.
            StorageUnavailableError: The store is unavailable, or refuses and no summary is young enough.
        """
        answer = await self._read.result()
        return answer._replace(body=_degraded(answer.body)) if answer.is_old else answer

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
        index: Knows which summaries by labels are cached.
        clock: Where windows end.
    """

    def __init__(
        self,
        store: MetricStore,
        cache: ReadThroughCache,
        external_service: ExternalService,
        index: SummaryIndex,
        clock: Clock,
    ) -> None:
        self._index = index
        self._store = store
        self._cache = cache
        self._external_service = external_service
        self._clock = clock

    def begin(
        self, metric_type: str, period: Period, labels: LabelQuery = ALL_SERIES, *, refresh: bool = False
    ) -> SummaryRead:
        """Begin to read a summary: cached, computed when it is finished, or the last good one.

        Args:
            metric_type: What to summarize.
            period: Over which window.
            labels: Which series to summarize, and how to group them.
            refresh: Compute the summary even where it is cached.
        """
        compute = partial(self._compute, metric_type, period, labels)
        key = cache_key(metric_type, period, labels)
        return SummaryRead(self._cache.begin(key, compute, refresh=refresh))

    async def forget(self, metric_types: set[str]) -> None:
        """Drop every cached summary of `metric_types`; the last good ones stay for a time of need."""
        periods = get_args(Period)
        await self._cache.invalidate([cache_key(name, period) for name in metric_types for period in periods])

    async def discard(self, metric_type: str) -> None:
        """Drop every cached summary of `metric_type`, those by labels and the last good ones included.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        keys = [cache_key(metric_type, period) for period in get_args(Period)]
        keys += await self._index.take(metric_type)
        await self._cache.invalidate(keys, last_good=True)

    async def _compute(self, metric_type: str, period: Period, labels: LabelQuery) -> bytes:
        if labels != ALL_SERIES:
            await self._index.add(metric_type, cache_key(metric_type, period, labels))
        now_us = round(self._clock.now() * 1e6)
        seconds = WINDOW_SECONDS.get(period)
        window = None if seconds is None else Window.rolling(now_us, seconds)
        try:
            async with asyncio.TaskGroup() as group:
                read = self._read(metric_type, window, labels)
                summaries = group.create_task(read)
                reference = group.create_task(self._external_service.reference(metric_type))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the one that ended the other
        about = {"reference": reference.result(), "degraded": False, "generated_at": format_timestamp(now_us)}
        return _render({"type": metric_type, "period": period}, labels, summaries.result(), about)

    async def _read(self, metric_type: str, window: Window | None, labels: LabelQuery) -> Groups:
        if labels == ALL_SERIES:
            return Groups([Group({}, await self._store.aggregate(metric_type, window))])
        return await self._store.groups(metric_type, window, labels)


def _render(
    what: Mapping[str, str], labels: LabelQuery, summaries: Groups, about: Mapping[str, object]
) -> bytes:
    if not labels.group_by:
        (only,) = summaries.groups
        return orjson.dumps({**what, **_figures(only.aggregate), **about})
    groups = [{"labels": group.labels, **_figures(group.aggregate)} for group in summaries.groups]
    truncated = {"truncated": True} if summaries.is_truncated else {}
    return orjson.dumps({**what, "group_by": labels.group_by, **about, "groups": groups, **truncated})


def _figures(aggregate: Aggregate) -> dict[str, object]:
    rollup, sketch = aggregate
    some = rollup.count > 0
    return {
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
    }


def _degraded(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body) | {"degraded": True})
