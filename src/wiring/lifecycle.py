"""Deletion of metrics, and their retention."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from src.config.settings import Settings
from src.resilience.clock import Clock
from src.services.metrics.lifecycle import LifecycleService, RetentionSweeper
from src.storage.metrics.lifecycle.retention import RedisRetention
from src.storage.metrics.lifecycle.summary_index import RedisSummaryIndex
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import RedisLink


def summary_index(settings: Settings, link: RedisLink, clock: Clock) -> RedisSummaryIndex:
    """Return the index of cached summaries by labels."""
    return RedisSummaryIndex(link, clock, settings.cache_ttl_seconds + settings.cache_stale_seconds)


@asynccontextmanager
async def running_lifecycle(
    settings: Settings,
    link: RedisLink,
    clock: Clock,
    store: RedisMetricStore,
    discard: Callable[[str], Awaitable[None]],
) -> AsyncIterator[LifecycleService]:
    """Return the service that deletes metrics, while points are swept that are too old.

    Args:
        settings: The settings.
        link: To Redis.
        clock: The clock for the sweeps.
        store: The points.
        discard: Drops the cached summaries of a type.
    """
    retention = RedisRetention(link)
    lifecycle = LifecycleService(store, retention, settings.metric_retention_seconds, discard)
    sweeper = RetentionSweeper(lifecycle, retention, clock)
    sweeper.start()
    try:
        yield lifecycle
    finally:
        await sweeper.aclose()
