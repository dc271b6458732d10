"""Resilience patterns for asyncio: small, typed, framework-free.

Each module holds one pattern with its options, its memory form and its events. The patterns know only the
protocols in `policy`, `clock` and `events`; where state must be shared they ask a store, whose Redis form
lives in `src.storage`.

Everything public can be had from here: `from src.resilience import Pipeline, Retry, RetryOptions`.
"""

from src.resilience.adaptive_concurrency import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Aimd,
    Gradient,
    LimitAlgorithm,
    Resizable,
    Round,
    unless_rejected,
)
from src.resilience.breaker_store import (
    BreakerState,
    BreakerStatus,
    BreakerStore,
    CircuitBreakerOptions,
    Order,
    Refusal,
    Ticket,
    Transition,
)
from src.resilience.bulkhead import (
    Bulkhead,
    BulkheadOptions,
)
from src.resilience.cache import (
    Answer,
    Compute,
    ReadThroughCache,
)
from src.resilience.cache_store import (
    CacheOptions,
    CacheStore,
    Entry,
    Lease,
    MemoryCacheStore,
)
from src.resilience.chaos import (
    Chaos,
    ChaosOptions,
    Fault,
    Injection,
    Latency,
    Outcome,
)
from src.resilience.circuit_breaker import (
    CircuitBreaker,
    any_error_fails,
)
from src.resilience.clock import (
    Clock,
    Handle,
    Randomizer,
    SystemClock,
    SystemRandomizer,
)
from src.resilience.errors import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    RateLimitedError,
    RejectedError,
    ResilienceError,
)
from src.resilience.events import (
    Bypassed,
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    Event,
    FaultInjected,
    FellBack,
    Hedged,
    HedgedAttemptFailed,
    HedgeWon,
    LimitChanged,
    Listener,
    Listeners,
    ProbeStarted,
    Rejected,
    Retried,
    RetriesExhausted,
    StateChanged,
    TimedOut,
    ignore,
    notify,
)
from src.resilience.fallback import (
    Fallback,
    Substitute,
    always,
)
from src.resilience.health_window import (
    CountWindow,
    Health,
    HealthWindow,
    TimeWindow,
)
from src.resilience.hedging import (
    Hedging,
    HedgingOptions,
)
from src.resilience.memory_breaker_store import MemoryBreakerStore
from src.resilience.memory_rate_limiter import (
    FixedWindow,
    LeakyBucket,
    SlidingWindowCounter,
    SlidingWindowLog,
    TokenBucket,
    memory_rate_limiter,
)
from src.resilience.pipeline import (
    Pipeline,
)
from src.resilience.policy import (
    Call,
    Policy,
)
from src.resilience.rate_limiter import Algorithm, Decision, Quota, RateLimit, RateLimiter, RateLimitOptions
from src.resilience.retry import (
    IMMEDIATE,
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    Linear,
    Retry,
    RetryBudget,
    RetryOptions,
    every_error,
    no_error,
)
from src.resilience.timeout import (
    Timeout,
)

__all__ = [
    "IMMEDIATE",
    "AdaptiveConcurrency",
    "AdaptiveConcurrencyOptions",
    "Aimd",
    "Algorithm",
    "Answer",
    "Backoff",
    "BreakerState",
    "BreakerStatus",
    "BreakerStore",
    "Bulkhead",
    "BulkheadFullError",
    "BulkheadOptions",
    "Bypassed",
    "CacheAnswered",
    "CacheOptions",
    "CacheRefreshFailed",
    "CacheRefreshed",
    "CacheStore",
    "Call",
    "CallTimeoutError",
    "Chaos",
    "ChaosOptions",
    "CircuitBreaker",
    "CircuitBreakerOptions",
    "CircuitOpenError",
    "Clock",
    "Compute",
    "CountWindow",
    "Decision",
    "DecorrelatedJitter",
    "Entry",
    "EqualJitter",
    "Event",
    "Exponential",
    "Fallback",
    "Fault",
    "FaultInjected",
    "FellBack",
    "Fixed",
    "FixedWindow",
    "FullJitter",
    "Gradient",
    "Handle",
    "Health",
    "HealthWindow",
    "HedgeWon",
    "Hedged",
    "HedgedAttemptFailed",
    "Hedging",
    "HedgingOptions",
    "Injection",
    "Latency",
    "LeakyBucket",
    "Lease",
    "LimitAlgorithm",
    "LimitChanged",
    "Linear",
    "Listener",
    "Listeners",
    "MemoryBreakerStore",
    "MemoryCacheStore",
    "Order",
    "Outcome",
    "Pipeline",
    "Policy",
    "ProbeStarted",
    "Quota",
    "Randomizer",
    "RateLimit",
    "RateLimitOptions",
    "RateLimitedError",
    "RateLimiter",
    "ReadThroughCache",
    "Refusal",
    "Rejected",
    "RejectedError",
    "ResilienceError",
    "Resizable",
    "Retried",
    "RetriesExhausted",
    "Retry",
    "RetryBudget",
    "RetryOptions",
    "Round",
    "SlidingWindowCounter",
    "SlidingWindowLog",
    "StateChanged",
    "Substitute",
    "SystemClock",
    "SystemRandomizer",
    "Ticket",
    "TimeWindow",
    "TimedOut",
    "Timeout",
    "TokenBucket",
    "Transition",
    "always",
    "any_error_fails",
    "every_error",
    "ignore",
    "memory_rate_limiter",
    "no_error",
    "notify",
    "unless_rejected",
]
