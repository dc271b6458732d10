"""The failure rate that all workers agree on for a simulated service that each runs in process."""

from src.storage.client import RedisLink

_KEY = "external-service:failure-rate"


class RedisFailureRateStore:
    """A `FailureRateStore` in Redis.

    Args:
        link: To Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def get(self) -> float | None:
        """Return the agreed rate, None when nobody has set one."""
        rate = await self._link.send("GET", _KEY)
        return None if rate is None else float(rate)

    async def set(self, rate: float) -> None:
        """Make `rate` the agreed one."""
        await self._link.send("SET", _KEY, repr(rate))
