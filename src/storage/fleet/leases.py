"""The right to run the one load test of the fleet, as a key that runs out by itself."""

from contextlib import suppress

from src.services.errors import StorageUnavailableError
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import load_script

_KEY = "lab:stress"
_RELEASE = load_script("cache_release")  # a lease is a lease


class RedisStressLease:
    """A `StressLease` in Redis.

    Args:
        link: To Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def take(self, token: str, seconds: float) -> float:
        """Take the lease, or return how long another has it. Raises `StorageUnavailableError`."""
        taken, remaining_ms = await self._link.send_all(
            [("SET", _KEY, token, "NX", "PX", round(seconds * 1000)), ("PTTL", _KEY)]
        )
        return 0.0 if taken else max(remaining_ms, 1) / 1000

    async def release(self, token: str) -> None:
        """Give the lease back. While Redis is away it just runs out."""
        with suppress(StorageUnavailableError):
            await self._link.run(_RELEASE, (_KEY,), (token,))
