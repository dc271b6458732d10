"""The pulse of all workers in Redis: a hash of counts for each second of the server's clock.

A hash holds tallies by their names and latencies by the numbers of their bins, and expires soon after the
window has left it behind.
"""

from typing import cast

from redis.exceptions import RedisError

from src.services.errors import StorageUnavailableError
from src.services.pulse_store import LIVE_SECONDS, WINDOW_SECONDS, Beat, PulseReading, Tally
from src.storage.client import RedisLink
from src.storage.scripts import SERVER_TIME, Script, load_script
from src.storage.wire import Argument, Reply

_PREFIX = "pulse:{fleet}:"
_WORKERS = f"{_PREFIX}workers"
_KEPT_SECONDS = 3 * WINDOW_SECONDS


class RedisPulseStore:
    """A `PulseStore` in Redis.

    Args:
        link: To Redis.
        worker: Tells this worker from all others of the fleet.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(self, link: RedisLink, worker: str, *, time_source: str = SERVER_TIME) -> None:
        self._link = link
        self._worker = worker
        self._add = load_script("pulse_add", time_source=time_source)
        self._read = load_script("pulse_read", time_source=time_source)

    async def add(self, beat: Beat) -> None:
        """Add what this worker has counted, in one script."""
        counts = [
            word for counted in (beat.tallies, beat.latencies) for pair in counted.items() for word in pair
        ]
        await self._run(self._add, self._worker, LIVE_SECONDS, _KEPT_SECONDS, *counts)

    async def read(self) -> PulseReading:
        """Return the last whole window, by one script."""
        workers, sums = await self._run(self._read, WINDOW_SECONDS, LIVE_SECONDS)
        tallies: dict[Tally, int] = {}
        latencies: dict[int, int] = {}
        for name, count in zip(sums[::2], sums[1::2], strict=True):
            if name.isdigit():
                latencies[int(name)] = count
            else:
                tallies[cast("Tally", name.decode())] = count
        return PulseReading(Beat(tallies, latencies), workers)

    async def _run(self, script: Script, *arguments: Argument) -> Reply:
        try:
            return await self._link.run(script, [_WORKERS], [_PREFIX, *arguments])
        except RedisError as error:  # somebody else's value stands there
            raise StorageUnavailableError(str(error)) from error
