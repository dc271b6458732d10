"""The patterns' stores in Redis, for any client of `redis.asyncio`. This package needs redis-py.

    store = RedisBreakerStore(redis.asyncio.from_url("redis://localhost"))
    breaker = CircuitBreaker("payments", store, CircuitBreakerOptions(), SystemClock())

Each store takes a redis-py client (of one server, `Sentinel.master_for(…)`, or `RedisCluster`), or a
`ScriptRunner`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cache.recent_entries import RecentEntries
    from ..cache.redis import RedisCacheStore
    from ..circuit_breaker.failover import FailoverBreakerStore
    from ..circuit_breaker.redis import RedisBreakerStore
    from ..paced_queue.failover import FailoverPaceStore
    from ..paced_queue.redis import RedisPaceStore
    from ..rate_limiter.failover import FailoverRateLimiter
    from ..rate_limiter.redis import RedisRateLimiter
    from .client_runner import ClientRunner
    from .port import ScriptRunner
    from .scripts import Script, load_script

__all__ = [
    "ClientRunner",
    "FailoverBreakerStore",
    "FailoverPaceStore",
    "FailoverRateLimiter",
    "RecentEntries",
    "RedisBreakerStore",
    "RedisCacheStore",
    "RedisPaceStore",
    "RedisRateLimiter",
    "Script",
    "ScriptRunner",
    "load_script",
]

_MODULES = {
    "ClientRunner": ".client_runner",
    "FailoverBreakerStore": "..circuit_breaker.failover",
    "FailoverPaceStore": "..paced_queue.failover",
    "FailoverRateLimiter": "..rate_limiter.failover",
    "RecentEntries": "..cache.recent_entries",
    "RedisBreakerStore": "..circuit_breaker.redis",
    "RedisCacheStore": "..cache.redis",
    "RedisPaceStore": "..paced_queue.redis",
    "RedisRateLimiter": "..rate_limiter.redis",
    "Script": ".scripts",
    "ScriptRunner": ".port",
    "load_script": ".scripts",
}
"""The module of each name. The names are imported on first use, because these modules import this package."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
