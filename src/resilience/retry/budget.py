"""The retry budget: retries are at most a share of all calls."""

import math
import threading


class RetryBudget:
    """Limits retries to a share of calls, however many calls fail.

    A bucket holds up to `reserve` tokens and starts full. Every call adds `share` of a token, every retry
    takes one token, and without a token there is no retry: n calls make at most `reserve + share · n`
    retries. Several policies, event loops and threads can share one budget. The idea is that of Finagle's
    `RetryBudget`.

    Args:
        share: The long-term share of retries in calls, above 0 and at most 1.
        reserve: The number of retries that are possible after few calls, at least 1.
    """

    def __init__(self, share: float = 0.2, reserve: float = 10.0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        if not 1 <= reserve < math.inf:
            raise ValueError(f"reserve must be finite and at least 1, not {reserve}")
        self._share = share
        self._reserve = reserve
        self._tokens = reserve
        self._lock = threading.RLock()  # reentrant: garbage collection may close a coroutine

    def count_call(self) -> None:
        """Count a call that has begun."""
        self._add(self._share)

    def take_retry(self) -> bool:
        """Return whether a retry is possible now; if so, take its token."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def give_back_retry(self) -> None:
        """Give back the token of a retry that was not made."""
        self._add(1)

    def _add(self, tokens: float) -> None:
        with self._lock:
            self._tokens = min(self._reserve, self._tokens + tokens)
