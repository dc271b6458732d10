"""The lease for load tests: one worker runs a load test at a time. The lease is a key that expires."""

from contextlib import suppress

from src.resilience.cache.redis import RELEASE
from src.services.errors import StorageUnavailableError
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

_KEY = "lab:stress"
_TAKE = storage_script("fleet/lease_take")

LONGEST_SECONDS = 120.0
"""The longest lease. A lease with more time left was taken before Redis' clock was set back, and is
invalid."""


class RedisStressLease:
    """A `StressLease` in Redis.

    Args:
        link: The connection to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def take(self, token: str, seconds: float) -> float:
        """Take the lease, unless another holder has it.

        Args:
            token: The id of the holder.
            seconds: The length of the lease, above 0 and at most `LONGEST_SECONDS`.

        Returns:
            0 if the lease was taken. Otherwise the seconds until the lease of the other holder expires.

        Raises:
            StorageUnavailableError: Redis is unavailable.
            ValueError: `seconds` is out of range.
        """
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ValueError(f"seconds must be above 0 and at most {LONGEST_SECONDS:g}, not {seconds}")
        ms, longest_ms = round(seconds * 1000), round(LONGEST_SECONDS * 1000)
        remaining_ms: int = await self._link.run(_TAKE, (_KEY,), (token, ms, longest_ms))
        return remaining_ms / 1000

    async def release(self, token: str) -> None:
        """Release the lease, if `token` holds it. If Redis is unavailable, the lease expires."""
        with suppress(StorageUnavailableError):
            await self._link.run(RELEASE, (_KEY,), (token,))
