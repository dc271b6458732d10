"""The counters of all workers in Redis: one hash for each second of the server's clock.

The fields of a hash are the names of the counters and the bin numbers of the latencies. A hash expires soon
after the window has moved past its second.
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
        link: The connection to Redis.
        worker: The id of this worker, unique among all workers.
        time_source: Lua code that defines `now_us()`.
    """

    def __init__(self, link: RedisLink, worker: str, *, time_source: str = SERVER_TIME) -> None:
        self._link = link
        self._worker = worker
        self._add = storage_script("fleet/counters_add", time_source=time_source)
        self._read = storage_script("fleet/counters_read", time_source=time_source)

    async def add(self, counts: CounterSnapshot) -> None:
        """Add the counts of this worker, in one script."""
        fields = [
            argument
            for counts_by_field in (counts.values, counts.latencies)
            for field in counts_by_field.items()
            for argument in field
        ]
        await self._run(self._add, self._worker, LIVE_SECONDS, _KEPT_SECONDS, *fields)

    async def read(self) -> CounterReading:
        """Return the counts of the last complete window, from one script."""
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
        except RedisError as error:  # another program has stored a value under one of the keys
            raise StorageUnavailableError(str(error)) from error
