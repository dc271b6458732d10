"""The lease of a deletion: one worker at a time deletes points of a type.

Each script of a deletion checks the lease and renews it. If a worker was stopped for a long time and another
worker has taken the lease, the scripts of the first worker change nothing.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

from src.resilience.cache.redis import RELEASE
from src.resilience.clock import Clock
from src.resilience.redis.port import Argument
from src.services.errors import StorageUnavailableError
from src.storage.metrics.layout import key_of
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

LEASE_SECONDS = 10
"""The length of the lease. Each step of the deletion renews it."""
WAIT_SECONDS = 30
"""The longest wait for another deletion of the same type."""
POLL_SECONDS = 0.1

_TAKE = storage_script("metrics/lifecycle/deletion_take")


class DeletionLease(NamedTuple):
    """The lease that a deletion holds.

    Attributes:
        key: The key of the lease.
        token: The value of the key while the deletion holds the lease.
    """

    key: str
    token: str

    @property
    def arguments(self) -> tuple[Argument, Argument]:
        """The first arguments of each script that checks the lease."""
        return self.token, LEASE_SECONDS * 1000


class LeaseLostError(StorageUnavailableError):
    """Another worker has taken the lease, because this one made no step for `LEASE_SECONDS`."""

    def __init__(self) -> None:
        super().__init__("another deletion of this type has begun in the meantime")


class DeletionLeases:
    """Takes and releases the leases of deletions.

    Args:
        link: The link to Redis.
        clock: The clock for the wait for a lease.
    """

    def __init__(self, link: RedisLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    @asynccontextmanager
    async def hold(self, metric_type: str) -> AsyncIterator[DeletionLease]:
        """Hold the lease of a type. If another deletion holds it, wait for up to `WAIT_SECONDS`.

        Raises:
            StorageUnavailableError: The other deletion takes longer, or Redis is unavailable.
        """
        lock = self._locks.setdefault(metric_type, asyncio.Lock())
        async with lock:
            lease = DeletionLease(key_of(metric_type, "x"), uuid.uuid4().hex)
            try:
                await self._take(lease)
                yield lease
            finally:
                with suppress(StorageUnavailableError):  # without a release, the lease expires
                    await self._link.run(RELEASE, (lease.key,), (lease.token,))

    async def _take(self, lease: DeletionLease) -> None:
        ms = LEASE_SECONDS * 1000
        end = self._clock.monotonic() + WAIT_SECONDS
        while await self._link.run(_TAKE, (lease.key,), (lease.token, ms, ms)):
            if self._clock.monotonic() >= end:
                raise StorageUnavailableError("another deletion of this type is running")
            await self._clock.sleep(POLL_SECONDS)
