"""Summaries of metric types, cached as rendered JSON.

A summary is rendered to bytes when it is computed. The cache holds these bytes, and the API sends them.
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
from src.resilience.cache.answer import Answer, CacheRead
from src.resilience.cache.policy import ReadThroughCache
from src.resilience.clock import Clock
from src.services.external_service import ExternalService
from src.services.metrics.ingest import MetricStore
from src.services.metrics.labels import ALL_SERIES, Group, Groups, LabelQuery

Period = Literal["all", "daily", "hourly"]

WINDOW_SECONDS: dict[Period, int] = {"daily": 24 * 3600, "hourly": 3600}
"""The length of a period's rolling window. The period "all" has no window."""


def cache_key(metric_type: str, period: str, labels: LabelQuery = ALL_SERIES) -> str:
    """Return the cache key of a summary."""
    key = f"summary:{metric_type}:{period}"
    if labels == ALL_SERIES:
        return key
    filters = {name: sorted(values) for name, values in labels.filters.items()}
    text = orjson.dumps([filters, labels.group_by], option=orjson.OPT_SORT_KEYS)
    return f"{key}:{hashlib.blake2b(text, digest_size=12).hexdigest()}"


class SummaryIndex(Protocol):
    """The port of an index of the cached summaries by labels."""

    async def add(self, metric_type: str, key: str) -> None:
        """Note that a summary of `metric_type` is going to be cached under `key`."""
        ...

    async def take(self, metric_type: str) -> Sequence[str]:
        """Return the keys of the cached summaries of `metric_type`, and forget them."""
        ...


class SummaryRead:
    """A summary that is being read.

    `SummaryService.begin` sends the command to the cache at once. `result` does the rest of the work.

    Args:
        read: The read of the cache.
    """

    __slots__ = ("_read",)

    def __init__(self, read: CacheRead) -> None:
        self._read = read

    async def result(self) -> Answer:
        """Return the summary.

        If the external service fails, or if computing the summary takes too long, the result is the last good
        summary, marked as degraded.

        Raises:
            CircuitOpenError: The external service's breaker is open, and there is no recent summary.
            ExternalServiceUnavailableError: The external service failed, and there is no recent summary.
            StorageRefusedError: The store rejected a command, and there is no recent summary.
            StorageUnavailableError: The store is unavailable.
        """
        answer = await self._read.result()
        return answer._replace(body=_mark_degraded(answer.body)) if answer.is_old else answer

    async def cancel(self) -> None:
        """Do nothing. The command to the cache is already sent, and its reply is ignored."""


class SummaryService:
    """Computes and caches the summaries of metric types.

    Args:
        store: The store of the points.
        cache: The cache of rendered summaries. Concurrent readers of a summary share one computation. The
            cache must serve a stale summary instead of a `CircuitOpenError`,
            `ExternalServiceUnavailableError` or `StorageRefusedError`.
        external_service: The source of a type's reference data.
        index: The keys of the cached summaries by labels.
        clock: Provides the current time, at which a rolling window ends.
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
        """Begin to read a summary from the cache. If it is not cached, `SummaryRead.result` computes it.

        Args:
            metric_type: The type to summarize.
            period: The period to summarize.
            labels: The series to summarize, and their grouping.
            refresh: Whether to compute the summary even if it is cached.
        """
        compute = partial(self._compute, metric_type, period, labels)
        key = cache_key(metric_type, period, labels)
        return SummaryRead(self._cache.begin(key, compute, refresh=refresh))

    async def forget(self, metric_types: set[str]) -> None:
        """Drop the cached summaries of `metric_types`, except summaries with label filters or groups.

        A dropped summary is still served if the computation of a new summary fails.
        """
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
            async with asyncio.TaskGroup() as tasks:
                groups = tasks.create_task(self._read_groups(metric_type, window, labels))
                reference = tasks.create_task(self._external_service.reference(metric_type))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first error has cancelled the other task
        subject = {"type": metric_type, "period": period}
        context = {
            "reference": reference.result(),
            "degraded": False,
            "generated_at": format_timestamp(now_us),
        }
        return _render(subject, labels, groups.result(), context)

    async def _read_groups(self, metric_type: str, window: Window | None, labels: LabelQuery) -> Groups:
        if labels == ALL_SERIES:
            return Groups([Group({}, await self._store.aggregate(metric_type, window))])
        return await self._store.groups(metric_type, window, labels)


def _render(
    subject: Mapping[str, str], labels: LabelQuery, groups: Groups, context: Mapping[str, object]
) -> bytes:
    if not labels.group_by:
        (group,) = groups.groups
        return orjson.dumps({**subject, **_summary_members(group.aggregate), **context})
    members = [{"labels": group.labels, **_summary_members(group.aggregate)} for group in groups.groups]
    truncated = {"truncated": True} if groups.is_truncated else {}
    return orjson.dumps({**subject, "group_by": labels.group_by, **context, "groups": members, **truncated})


def _summary_members(aggregate: Aggregate) -> dict[str, object]:
    rollup, sketch = aggregate
    has_points = rollup.count > 0
    return {
        "count": rollup.count,
        "average_value": rollup.average,
        "min_value": rollup.minimum if has_points else None,
        "max_value": rollup.maximum if has_points else None,
        "latest_value": rollup.latest_value if has_points else None,
        "sum": rollup.total,
        "p50": sketch.quantile(0.50) if has_points else None,
        "p95": sketch.quantile(0.95) if has_points else None,
        "p99": sketch.quantile(0.99) if has_points else None,
        "latest_timestamp": format_timestamp(rollup.latest_us) if has_points else None,
    }


def _mark_degraded(body: bytes) -> bytes:
    return orjson.dumps(orjson.loads(body) | {"degraded": True})
