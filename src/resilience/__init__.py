"""Resilience patterns for asyncio: small, typed, framework-free.

A pattern is a module, or a folder with modules for the policy and for its options. The folder of a pattern
that keeps its state in a store also has the port of the store, and its implementations: in memory, in Redis
with Lua scripts, and with failover to memory. The patterns use only the protocols in `policy`, `clock`
and `events`.

The names that most programs use are here: `from standfast import Retry, RetryOptions`. Every other name is in
the module of its pattern: `from standfast.retry import Linear`, `from standfast.circuit_breaker import
BreakerState`. The events are in `standfast.events`, all errors in `standfast.errors`, and the stores in Redis
in `standfast.redis`, which needs redis-py.

A name of this module is loaded when it is first used (PEP 562), so a program pays for the import of the
patterns that it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adaptive_concurrency import AdaptiveConcurrency as AdaptiveConcurrency
    from .adaptive_concurrency import AdaptiveConcurrencyOptions as AdaptiveConcurrencyOptions
    from .bulkhead import Bulkhead as Bulkhead
    from .bulkhead import BulkheadOptions as BulkheadOptions
    from .cache import CacheOptions as CacheOptions
    from .cache import MemoryCacheStore as MemoryCacheStore
    from .cache import ReadThroughCache as ReadThroughCache
    from .chaos import Chaos as Chaos
    from .chaos import ChaosOptions as ChaosOptions
    from .circuit_breaker import CircuitBreaker as CircuitBreaker
    from .circuit_breaker import CircuitBreakerOptions as CircuitBreakerOptions
    from .circuit_breaker import MemoryBreakerStore as MemoryBreakerStore
    from .clock import SystemClock as SystemClock
    from .errors import BulkheadFullError as BulkheadFullError
    from .errors import CallTimeoutError as CallTimeoutError
    from .errors import CircuitOpenError as CircuitOpenError
    from .errors import QueueFullError as QueueFullError
    from .errors import RateLimitedError as RateLimitedError
    from .errors import RejectedError as RejectedError
    from .errors import ResilienceError as ResilienceError
    from .errors import StoreUnavailableError as StoreUnavailableError
    from .fallback import Fallback as Fallback
    from .fallback import always as always
    from .hedging import Hedging as Hedging
    from .hedging import HedgingOptions as HedgingOptions
    from .paced_queue import MemoryPaceStore as MemoryPaceStore
    from .paced_queue import PacedQueue as PacedQueue
    from .paced_queue import PacedQueueOptions as PacedQueueOptions
    from .pipeline import Pipeline as Pipeline
    from .rate_limiter import Quota as Quota
    from .rate_limiter import RateLimit as RateLimit
    from .rate_limiter import RateLimitOptions as RateLimitOptions
    from .rate_limiter import memory_rate_limiter as memory_rate_limiter
    from .rate_limiter import parse_quotas as parse_quotas
    from .retry import Exponential as Exponential
    from .retry import Fixed as Fixed
    from .retry import FullJitter as FullJitter
    from .retry import Retry as Retry
    from .retry import RetryOptions as RetryOptions
    from .timeout import Timeout as Timeout

_MODULES = {
    "AdaptiveConcurrency": "adaptive_concurrency",
    "AdaptiveConcurrencyOptions": "adaptive_concurrency",
    "Bulkhead": "bulkhead",
    "BulkheadFullError": "errors",
    "BulkheadOptions": "bulkhead",
    "CacheOptions": "cache",
    "CallTimeoutError": "errors",
    "Chaos": "chaos",
    "ChaosOptions": "chaos",
    "CircuitBreaker": "circuit_breaker",
    "CircuitBreakerOptions": "circuit_breaker",
    "CircuitOpenError": "errors",
    "Exponential": "retry",
    "Fallback": "fallback",
    "Fixed": "retry",
    "FullJitter": "retry",
    "Hedging": "hedging",
    "HedgingOptions": "hedging",
    "MemoryBreakerStore": "circuit_breaker",
    "MemoryCacheStore": "cache",
    "MemoryPaceStore": "paced_queue",
    "PacedQueue": "paced_queue",
    "PacedQueueOptions": "paced_queue",
    "Pipeline": "pipeline",
    "QueueFullError": "errors",
    "Quota": "rate_limiter",
    "RateLimit": "rate_limiter",
    "RateLimitOptions": "rate_limiter",
    "RateLimitedError": "errors",
    "ReadThroughCache": "cache",
    "RejectedError": "errors",
    "ResilienceError": "errors",
    "Retry": "retry",
    "RetryOptions": "retry",
    "StoreUnavailableError": "errors",
    "SystemClock": "clock",
    "Timeout": "timeout",
    "always": "fallback",
    "memory_rate_limiter": "rate_limiter",
    "parse_quotas": "rate_limiter",
}
"""The module of each name."""

if not TYPE_CHECKING:  # a type checker reads the names from the imports above, and must accept no others
    __all__ = [*_MODULES]  # noqa: PLE0604

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        item = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = item
        return item


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
