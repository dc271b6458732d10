"""The retry."""

from .backoffs import (
    IMMEDIATE,
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    JitterAround,
    Linear,
)
from .budget import RetryBudget
from .options import RetryOptions, at_least_retry_after, every_error, no_error
from .policy import Retry

__all__ = [
    "IMMEDIATE",
    "Backoff",
    "DecorrelatedJitter",
    "EqualJitter",
    "Exponential",
    "Fixed",
    "FullJitter",
    "JitterAround",
    "Linear",
    "Retry",
    "RetryBudget",
    "RetryOptions",
    "at_least_retry_after",
    "every_error",
    "no_error",
]
