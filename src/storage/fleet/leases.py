"""The right to run the one load test of the fleet, as a key that runs out by itself."""

from contextlib import suppress

from src.resilience.cache.redis import RELEASE
from src.services.errors import StorageUnavailableError
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script

_KEY = "lab:stress"
_TAKE = storage_script("lease_take")

LONGEST_SECONDS = 120.0
"""No stress test is given longer. A lease with more left is from before Redis' clock was set back."""


class RedisStressLease:
    """A `StressLease` in Redis.

    Args:
        link: To Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def take(self, token: str, seconds: float) -> float:
        """Take the lease, or return how long another has it.

        Raises:
            StorageUnavailableError: Redis is unavailable.
            ValueError: `seconds` is not above 0 and at most `LONGEST_SECONDS`.
        """
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ValueError(f"seconds must be above 0 and at most {LONGEST_SECONDS:g}, not {seconds}")
        ms, longest_ms = round(seconds * 1000), round(LONGEST_SECONDS * 1000)
        remaining_ms: int = await self._link.run(_TAKE, (_KEY,), (token, ms, longest_ms))
        return remaining_ms / 1000

    async def release(self, token: str) -> None:
        """Give the lease back. While Redis is unavailable, the lease runs out."""
        with suppress(StorageUnavailableError):
            await self._link.run(RELEASE, (_KEY,), (token,))
