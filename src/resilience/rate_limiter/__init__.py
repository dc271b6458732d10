"""The rate limiter: quotas, five algorithms in memory, and the policy that waits for its units."""

from .failover import FailoverRateLimiter
from .foresight import seconds_until
from .memory import (
    FixedWindow,
    LeakyBucket,
    SlidingWindowCounter,
    SlidingWindowLog,
    TokenBucket,
    memory_rate_limiter,
)
from .options import Algorithm, Quota, RateLimitOptions, check_cost, quotas_in
from .policy import RateLimit
from .quota_text import parse_quotas
from .store import Decision, RateLimiter, combine

__all__ = [
    "Algorithm",
    "Decision",
    "FailoverRateLimiter",
    "FixedWindow",
    "LeakyBucket",
    "Quota",
    "RateLimit",
    "RateLimitOptions",
    "RateLimiter",
    "SlidingWindowCounter",
    "SlidingWindowLog",
    "TokenBucket",
    "check_cost",
    "combine",
    "memory_rate_limiter",
    "parse_quotas",
    "quotas_in",
    "seconds_until",
]
