"""The index of cached summaries by labels. A deletion drops them, and could not derive their keys."""

from collections.abc import Sequence
from contextlib import suppress

from src.resilience.clock import Clock
from src.services.errors import StorageRefusedError
from src.storage.redis.link import RedisLink


class RedisSummaryIndex:
    """A `SummaryIndex` in Redis: for each type a sorted set of cache keys, scored by their expiry.

    Args:
        link: The link to Redis.
        clock: The clock for the expiries.
        kept_seconds: The longest time that a summary, or its last good copy, is in the cache.
    """

    def __init__(self, link: RedisLink, clock: Clock, kept_seconds: float) -> None:
        self._link = link
        self._clock = clock
        self._kept_seconds = kept_seconds

    async def add(self, metric_type: str, key: str) -> None:
        """Add a summary before it is cached. If Redis refuses the key, it refuses the summary too.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        now, index = self._clock.now(), _index(metric_type)
        with suppress(StorageRefusedError):
            await self._link.send_all(
                [
                    ("ZREMRANGEBYSCORE", index, "-inf", now),
                    ("ZADD", index, now + self._kept_seconds, key),
                    ("EXPIRE", index, round(self._kept_seconds) + 1),
                ]
            )

    async def take(self, metric_type: str) -> Sequence[str]:
        """Return the keys of a type's cached summaries, and remove them from the index.

        Raises:
            StorageUnavailableError: Redis is unavailable.
        """
        index = _index(metric_type)
        keys, _ = await self._link.send_all([("ZRANGE", index, 0, -1), ("DEL", index)])
        return [key.decode() for key in keys]


def _index(metric_type: str) -> str:
    return f"summaries:{metric_type}"
