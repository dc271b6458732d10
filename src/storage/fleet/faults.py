"""The faults that all workers agree on for a simulated service that each runs in process."""

from src.services.simulated_faults import FaultChanges
from src.storage.redis.link import RedisLink

_KEY = "external-service:faults"


class RedisFaultStore:
    """A `FaultStore` in Redis.

    Args:
        link: To Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def get(self) -> FaultChanges:
        """Return what has been agreed, and nothing of what nobody has set."""
        rate, latency = await self._link.send("HMGET", _KEY, "failure_rate", "latency_ms")
        agreed = FaultChanges()
        if rate is not None:
            agreed["failure_rate"] = float(rate)
        if latency is not None:
            agreed["latency_ms"] = int(latency)
        return agreed

    async def set(self, changes: FaultChanges) -> None:
        """Make `changes` what is agreed; the rest stays."""
        fields = [word for name, value in changes.items() for word in (name, repr(value))]
        await self._link.send("HSET", _KEY, *fields)
