"""The injected faults of the simulated service.

Each worker runs the service in its process with these faults.
"""

from src.services.simulated_faults import FaultChanges
from src.storage.redis.link import RedisLink

_KEY = "external-service:faults"


class RedisFaultStore:
    """A `FaultStore` in Redis.

    Args:
        link: The connection to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def get(self) -> FaultChanges:
        """Return the faults that were set. A fault that was never set is missing."""
        rate, latency = await self._link.send("HMGET", _KEY, "failure_rate", "latency_ms")
        faults = FaultChanges()
        if rate is not None:
            faults["failure_rate"] = float(rate)
        if latency is not None:
            faults["latency_ms"] = int(latency)
        return faults

    async def set(self, changes: FaultChanges) -> None:
        """Store `changes`. The other faults keep their values."""
        fields = [word for name, value in changes.items() for word in (name, repr(value))]
        await self._link.send("HSET", _KEY, *fields)
