"""Resilience patterns for asyncio: small, typed, framework-free.

A pattern is a module. A pattern that keeps its state in a store is a folder: policy, options, store (port),
memory form, Redis form with its Lua scripts, and the form for when the shared store is unavailable. The
patterns use only the protocols in `policy`, `clock` and `events`.

Everything public can be had from here: `from src.resilience import Pipeline, Retry, RetryOptions`. The Redis
forms are in `src.resilience.redis`, which needs redis-py.
"""

from .adaptive_concurrency import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Aimd,
    Gradient,
    LimitAlgorithm,
    Resizable,
    Round,
    unless_rejected,
)
from .bulkhead import (
    Bulkhead,
    BulkheadOptions,
)
from .cache.memory import MemoryCacheStore
from .cache.options import CacheOptions
from .cache.policy import Answer, CacheRead, Compute, ReadThroughCache
from .cache.recent_entries import RecentEntries
from .cache.store import CacheStore, Entry, Lease
from .chaos import (
    Chaos,
    ChaosOptions,
    Fault,
    Injection,
    Latency,
    Outcome,
)
from .circuit_breaker.failover import FailoverBreakerStore
from .circuit_breaker.health_window import CountWindow, Health, HealthWindow, TimeWindow
from .circuit_breaker.memory import MemoryBreakerStore
from .circuit_breaker.options import CircuitBreakerOptions
from .circuit_breaker.policy import CircuitBreaker, any_error_fails
from .circuit_breaker.store import (
    BreakerState,
    BreakerStatus,
    BreakerStore,
    ManualState,
    Refusal,
    Ticket,
    Transition,
    WouldOpen,
)
from .circuit_breaker.thread_safe import ThreadSafeBreakerStore
from .clock import (
    BlockingClock,
    Clock,
    Handle,
    Randomizer,
    SystemClock,
    SystemRandomizer,
)
from .errors import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    FailedResultError,
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
    RateLimitedError,
    RejectedError,
    ResilienceError,
    StoreRefusedError,
    StoreUnavailableError,
)
from .events import (
    Bypassed,
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    CallFinished,
    Event,
    FaultInjected,
    FellBack,
    Hedged,
    HedgedAttemptFailed,
    HedgeWon,
    LimitChanged,
    Listener,
    OutcomeLost,
    ProbeStarted,
    Rejected,
    Retried,
    RetriesExhausted,
    SlotTaken,
    StateChanged,
    TimedOut,
    Waited,
    WouldHaveOpened,
    accepts,
    each,
    ignore,
    notify,
    without,
)
from .fallback import (
    Fallback,
    Substitute,
    always,
)
from .hedging import (
    Hedging,
    HedgingOptions,
)
from .latencies import RecentLatencies
from .lease import LeaseRenewal
from .outcomes import report_outcomes
from .paced_queue.failover import FailoverPaceStore
from .paced_queue.memory import MemoryPaceStore
from .paced_queue.options import PacedQueueOptions, QueuePolicy, check_policy
from .paced_queue.policy import HeldSlot, PacedQueue
from .paced_queue.store import Offer, PaceStatus, PaceStore, Slot, SlotDecision
from .paced_queue.waiting_queue import QueuePlace, WaitingQueue
from .permit import BlockPolicy, Permit
from .permits import Permits
from .pipeline import (
    Pipeline,
)
from .policy import (
    AsyncPartial,
    BasePolicy,
    Call,
    Policy,
    ResultJudge,
    SyncPolicy,
    is_misuse,
    override,
    require_async,
)
from .rate_limiter.foresight import seconds_until
from .rate_limiter.memory import (
    FixedWindow,
    LeakyBucket,
    SlidingWindowCounter,
    SlidingWindowLog,
    TokenBucket,
    memory_rate_limiter,
)
from .rate_limiter.options import Algorithm, Quota, RateLimitOptions
from .rate_limiter.policy import RateLimit
from .rate_limiter.quota_text import parse_quotas
from .rate_limiter.store import Decision, RateLimiter
from .retry import (
    IMMEDIATE,
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    JitterAround,
    Linear,
    Retry,
    RetryBudget,
    RetryOptions,
    at_least_retry_after,
    every_error,
    no_error,
)
from .shared_tasks import SharedTask, SharedTasks
from .timeout import (
    Timeout,
)

__all__ = [
    "IMMEDIATE",
    "AdaptiveConcurrency",
    "AdaptiveConcurrencyOptions",
    "Aimd",
    "Algorithm",
    "Answer",
    "AsyncPartial",
    "Backoff",
    "BasePolicy",
    "BlockPolicy",
    "BlockingClock",
    "BreakerState",
    "BreakerStatus",
    "BreakerStore",
    "Bulkhead",
    "BulkheadFullError",
    "BulkheadOptions",
    "Bypassed",
    "CacheAnswered",
    "CacheOptions",
    "CacheRead",
    "CacheRefreshFailed",
    "CacheRefreshed",
    "CacheStore",
    "Call",
    "CallFinished",
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
    "FailedResultError",
    "FailoverBreakerStore",
    "FailoverPaceStore",
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
    "HeldSlot",
    "Injection",
    "JitterAround",
    "Latency",
    "LeakyBucket",
    "Lease",
    "LeaseRenewal",
    "LimitAlgorithm",
    "LimitChanged",
    "Linear",
    "Listener",
    "ManualState",
    "MemoryBreakerStore",
    "MemoryCacheStore",
    "MemoryPaceStore",
    "Offer",
    "Outcome",
    "OutcomeLost",
    "PaceStatus",
    "PaceStore",
    "PacedQueue",
    "PacedQueueOptions",
    "Permit",
    "Permits",
    "Pipeline",
    "Policy",
    "ProbeStarted",
    "QueueClosedError",
    "QueueFullError",
    "QueuePlace",
    "QueuePolicy",
    "QueueTimeoutError",
    "Quota",
    "Randomizer",
    "RateLimit",
    "RateLimitOptions",
    "RateLimitedError",
    "RateLimiter",
    "ReadThroughCache",
    "RecentEntries",
    "RecentLatencies",
    "Refusal",
    "Rejected",
    "RejectedError",
    "ResilienceError",
    "Resizable",
    "ResultJudge",
    "Retried",
    "RetriesExhausted",
    "Retry",
    "RetryBudget",
    "RetryOptions",
    "Round",
    "SharedTask",
    "SharedTasks",
    "SlidingWindowCounter",
    "SlidingWindowLog",
    "Slot",
    "SlotDecision",
    "SlotTaken",
    "StateChanged",
    "StoreRefusedError",
    "StoreUnavailableError",
    "Substitute",
    "SyncPolicy",
    "SystemClock",
    "SystemRandomizer",
    "ThreadSafeBreakerStore",
    "Ticket",
    "TimeWindow",
    "TimedOut",
    "Timeout",
    "TokenBucket",
    "Transition",
    "Waited",
    "WaitingQueue",
    "WouldHaveOpened",
    "WouldOpen",
    "accepts",
    "always",
    "any_error_fails",
    "at_least_retry_after",
    "check_policy",
    "each",
    "every_error",
    "ignore",
    "is_misuse",
    "memory_rate_limiter",
    "no_error",
    "notify",
    "override",
    "parse_quotas",
    "report_outcomes",
    "require_async",
    "seconds_until",
    "unless_rejected",
    "without",
]
