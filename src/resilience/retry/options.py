"""The options of the retry, and the functions that most programs use in them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..policy import ErrorJudge, ResultJudge, require_judge, selects
from .backoffs import Backoff, Exponential, FullJitter


def every_error(_error: Exception) -> bool:
    """Return True for any error."""
    return True


def no_error(_error: Exception) -> bool:
    """Return False for any error."""
    return False


def at_least_retry_after(outcome: object, wait: float) -> float:
    """Return the longer of `wait` and the `retry_after` of `outcome`, in seconds."""
    retry_after = getattr(outcome, "retry_after", None)
    # Written so that NaN, which compares false, has no effect.
    return float(retry_after) if isinstance(retry_after, (int, float)) and retry_after > wait else wait


_DEFAULT_BACKOFF: Final = FullJitter(Exponential(base_seconds=0.1, cap_seconds=5.0))


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """The limits, the delays and the failures of a retry.

    Attributes:
        attempts: The number of all attempts, the first included; at least 1.
        total_seconds: Time since the first attempt began after which no further attempt begins; finite, above
            0. It stops no running attempt; a timeout inside the retry does that.
        backoff: Determines the delay between attempts.
        delay_of: Returns the delay before the next attempt in seconds, at least 0, from the error or the
            failed result of an attempt, and from what `backoff` returned.
        retry_on: The errors that are retried: their classes, or a function that returns whether an error is.
        abort_on: The errors that are not retried although `retry_on` selects them, in the same two forms.
        is_failure_result: Returns whether a result counts as a failure and is retried; None: no result does.
    """

    attempts: int = 3
    total_seconds: float = 30.0
    backoff: Backoff = _DEFAULT_BACKOFF
    delay_of: Callable[[object, float], float] = at_least_retry_after
    retry_on: ErrorJudge = every_error
    abort_on: ErrorJudge = no_error
    is_failure_result: ResultJudge | None = None

    def __post_init__(self) -> None:
        if not self.attempts >= 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 < self.total_seconds < math.inf:
            raise ValueError(f"total_seconds must be finite and above 0, not {self.total_seconds}")
        require_judge("retry_on", self.retry_on)
        require_judge("abort_on", self.abort_on)

    def retries(self, error: Exception) -> bool:
        """Return whether `error` is retried while there are attempts left."""
        return selects(self.retry_on, error) and not selects(self.abort_on, error)
