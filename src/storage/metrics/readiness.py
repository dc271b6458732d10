"""Checks the parts of the metric service with the commands and scripts of their requests.

A Redis that answers PING may still refuse writes, because its memory is full or it is a replica. It may also
refuse commands and scripts that are renamed or denied. So each part is checked separately. Nothing is stored.
"""

import asyncio
from collections.abc import Awaitable

from redis.exceptions import RedisError

from src.resilience.clock import Clock
from src.services.errors import StorageUnavailableError
from src.services.metrics.readiness import Readiness
from src.storage.metrics.layout import key_of
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import CALL_TIMEOUT_SECONDS, RedisLink
from src.storage.redis.scripts import storage_script

ABSENT_TYPES = ("?0", "?1", "?2", "?3")
"""Names that no metric type can have, so their keys never exist. The keys of each name are in another quarter
of the slots of a Redis Cluster, so that no single node of several serves all of them."""

_CHECK_INGEST = storage_script("metrics/check_ingest")


class RedisReadiness:
    """Checks the parts.

    Args:
        link: The link to Redis.
        store: Reads measurements.
        clock: Limits the time of the checks.
    """

    def __init__(self, link: RedisLink, store: RedisMetricStore, clock: Clock) -> None:
        self._link = link
        self._store = store
        self._clock = clock

    async def check(self) -> Readiness:
        """Return the working parts, with one round trip, within `CALL_TIMEOUT_SECONDS`."""
        ingest, reads = await asyncio.gather(self._works(self._try_ingest()), self._works(self._try_reads()))
        return Readiness(ingest, reads)

    async def _works(self, attempt: Awaitable[object]) -> bool:
        try:
            async with self._clock.timeout(CALL_TIMEOUT_SECONDS):
                await attempt
        except (StorageUnavailableError, RedisError, TimeoutError):
            return False
        return True

    async def _try_ingest(self) -> None:
        await asyncio.gather(
            *(self._link.run(_CHECK_INGEST, ["types"], [key_of(name, "d")]) for name in ABSENT_TYPES)
        )

    async def _try_reads(self) -> None:
        await asyncio.gather(
            self._store.newest(ABSENT_TYPES[0], 1),
            self._link.send("ZREVRANGE", "types", 0, 0),
            *(self._store.aggregate(name, None) for name in ABSENT_TYPES),
        )
