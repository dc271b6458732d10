"""The circuit breaker."""

from .failover import FailoverBreakerStore
from .health_window import CountWindow, Health, HealthWindow, TimeWindow
from .memory import MemoryBreakerStore
from .options import CircuitBreakerOptions
from .policy import CircuitBreaker, any_error_fails
from .store import (
    BreakerState,
    BreakerStatus,
    BreakerStore,
    ManualState,
    Refusal,
    Ticket,
    Transition,
    WouldOpen,
)
from .thread_safe import ThreadSafeBreakerStore

__all__ = [
    "BreakerState",
    "BreakerStatus",
    "BreakerStore",
    "CircuitBreaker",
    "CircuitBreakerOptions",
    "CountWindow",
    "FailoverBreakerStore",
    "Health",
    "HealthWindow",
    "ManualState",
    "MemoryBreakerStore",
    "Refusal",
    "ThreadSafeBreakerStore",
    "Ticket",
    "TimeWindow",
    "Transition",
    "WouldOpen",
    "any_error_fails",
]
