"""What is logged of Redis' failures: each kind when it begins, and then once a minute while it lasts."""

import logging
import math

from src.resilience.clock import Clock
from src.resilience.redis.failures import Failure, failure_of, reason_of
from src.storage.redis.advice import advice_on

_log = logging.getLogger(__name__)

REMINDER_SECONDS = 60.0
"""How often the same failure is logged while it lasts."""
STILL_LOST_SECONDS = 5.0
"""How long an outage lasts before it is logged what the probes meet: often another failure than the first."""


class FailureLog:
    """Logs failures for an operator: where, what, and what to do.

    Args:
        address: Where Redis is, without credentials.
        clock: Measures outages, and the time between two reminders.
    """

    def __init__(self, address: str, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._lost_at = 0.0

    def lost(self, error: BaseException) -> None:
        """Log that Redis became unavailable."""
        self._lost_at = self._clock.monotonic()
        _log.error("redis_lost", extra=self._details(failure_of(error), error))

    def still_lost(self, error: BaseException) -> None:
        """Log why a probe failed, for each kind of failure once in `REMINDER_SECONDS`."""
        seconds = self._clock.monotonic() - self._lost_at
        failure = failure_of(error)
        if seconds >= STILL_LOST_SECONDS and self._is_due("lost", failure):
            _log.error("redis_still_lost", extra={"seconds": round(seconds), **self._details(failure, error)})

    def back(self) -> None:
        """Log that Redis answers again."""
        _log.warning("redis_back", extra={"address": self._address})

    def refused(self, error: BaseException) -> None:
        """Log that Redis refuses, for each kind of refusal once in `REMINDER_SECONDS`."""
        failure = failure_of(error)
        if self._is_due("refused", failure):
            _log.error("redis_refuses", extra=self._details(failure, error))

    def _is_due(self, event: str, failure: Failure) -> bool:
        now, kind = self._clock.monotonic(), f"{event} {failure.code}"
        if now - self._logged_at.get(kind, -math.inf) < REMINDER_SECONDS:
            return False
        self._logged_at[kind] = now
        return True

    def _details(self, failure: Failure, error: BaseException) -> dict[str, str]:
        return {
            "address": self._address,
            "code": failure.code,
            "reason": reason_of(error),
            "advice": advice_on(failure),
        }
