"""The log of Redis failures: each kind of failure when it begins, then once a minute while it lasts."""

import logging
import math

from src.resilience.clock import Clock
from src.resilience.redis.failures import Failure, failure_of, reason_of
from src.storage.redis.advice import advice_on

_log = logging.getLogger(__name__)

REMINDER_SECONDS = 60.0
"""The shortest time between two log entries for the same kind of failure."""
STILL_LOST_SECONDS = 5.0
"""The time of an outage after which the failures of the probes are logged. They often differ from the first
failure."""


class FailureLog:
    """Logs failures for an operator: the address, the failure, and advice.

    Args:
        address: The address of Redis, without credentials.
        clock: Measures outages, and the time between two log entries.
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
        """Log why a probe failed, at most once in `REMINDER_SECONDS` for each kind of failure."""
        seconds = self._clock.monotonic() - self._lost_at
        failure = failure_of(error)
        if seconds >= STILL_LOST_SECONDS and self._is_due("lost", failure):
            _log.error("redis_still_lost", extra={"seconds": round(seconds), **self._details(failure, error)})

    def back(self) -> None:
        """Log that Redis answers again."""
        _log.warning("redis_back", extra={"address": self._address})

    def refused(self, error: BaseException) -> None:
        """Log that Redis refused a command, at most once in `REMINDER_SECONDS` for each kind of refusal."""
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
