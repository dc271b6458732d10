"""The counters of all workers in Redis: a hash of counts for each second of the server's clock.

A hash holds values by their names and latencies by the numbers of their bins, and expires soon after the
window has left it behind.
"""

from typing import cast

from redis.exceptions import RedisError

from src.resilience.redis.port import Argument, Reply
from src.resilience.redis.scripts import SERVER_TIME, Script
from src.services.errors import StorageUnavailableError
from src.services.overview.counter_store import (
    LIVE_SECONDS,
    WINDOW_SECONDS,
    CounterName,
    CounterReading,
    CounterSnapshot,
)
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

_PREFIX = "counters:{fleet}:"
_WORKERS = f"{_PREFIX}workers"
_KEPT_SECONDS = 3 * WINDOW_SECONDS


class RedisCounterStore:
    """A `CounterStore` in Redis.

    Args:
        link: To Redis.
        worker: Tells this worker from all others of the fleet.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(self, link: RedisLink, worker: str, *, time_source: str = SERVER_TIME) -> None:
        self._link = link
        self._worker = worker
        self._add = storage_script("counters_add", time_source=time_source)
        self._read = storage_script("counters_read", time_source=time_source)

    async def add(self, counts: CounterSnapshot) -> None:
        """Add what this worker has counted, in one script."""
        arguments = [
            word for counted in (counts.values, counts.latencies) for pair in counted.items() for word in pair
        ]
        await self._run(self._add, self._worker, LIVE_SECONDS, _KEPT_SECONDS, *arguments)

    async def read(self) -> CounterReading:
        """Return the last whole window, by one script."""
        workers, sums = await self._run(self._read, WINDOW_SECONDS, LIVE_SECONDS)
        values: dict[CounterName, int] = {}
        latencies: dict[int, int] = {}
        for name, count in zip(sums[::2], sums[1::2], strict=True):
            if name.isdigit():
                latencies[int(name)] = count
            else:
                values[cast("CounterName", name.decode())] = count
        return CounterReading(CounterSnapshot(values, latencies), workers)

    async def _run(self, script: Script, *arguments: Argument) -> Reply:
        try:
            return await self._link.run(script, [_WORKERS], [_PREFIX, *arguments])
        except RedisError as error:  # somebody else's value stands there
            raise StorageUnavailableError(str(error)) from error
