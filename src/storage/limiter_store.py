"""Rate limiters that all workers share: the memory forms' contract, decided in Redis by one script a call.

Time is the server's, in whole microseconds, so workers whose clocks differ still agree.
"""

from src.resilience.rate_limiter import Algorithm, Decision, Quota
from src.storage.client import RedisLink
from src.storage.scripts import SERVER_TIME, Script, load_script


class RedisRateLimiter:
    """A `RateLimiter` in Redis. Every method raises `StorageUnavailableError` when Redis is away.

    Args:
        link: To Redis.
        script: The algorithm; public, so that it can be loaded ahead of the first hit.
        quota: The same for every key.
        prefix: Put before every key. The script's name is put after it: each algorithm keeps another kind of
            value, and one that is newly chosen must not trip over what the last one left.
    """

    def __init__(self, link: RedisLink, script: Script, quota: Quota, prefix: str) -> None:
        self.script = script
        self._link = link
        self._quota = quota
        self._prefix = prefix
        self._window_us = quota.window_us

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of `key`, all or none, in one round trip."""
        return await self._decide(key, cost, spend=True)

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Say what a hit would be told."""
        return await self._decide(key, cost, spend=False)

    async def reset(self, key: str) -> None:
        """Forget `key`."""
        await self._link.send("DEL", self._name(key))

    async def _decide(self, key: str, cost: int, *, spend: bool) -> Decision:
        self._quota.check(cost)
        allowed, remaining, retry_after_us, reset_after_us = await self._link.run(
            self.script,
            [self._name(key)],
            [self._quota.limit, self._window_us, cost, int(spend)],
            hurried=True,
        )
        return Decision(
            bool(allowed), self._quota.limit, remaining, retry_after_us / 1e6, reset_after_us / 1e6
        )

    def _name(self, key: str) -> str:
        return f"{self._prefix}{key}:{self.script.name}"


def redis_rate_limiter(
    algorithm: Algorithm,
    quota: Quota,
    link: RedisLink,
    *,
    prefix: str = "",
    time_source: str = SERVER_TIME,
) -> RedisRateLimiter:
    """Return a rate limiter for all processes that share a Redis.

    Args:
        algorithm: What decides.
        quota: The same for every key.
        link: To Redis.
        prefix: Put before every key.
        time_source: Lua that defines `now_us()`.
    """
    return RedisRateLimiter(link, load_script(algorithm, time_source=time_source), quota, prefix)
