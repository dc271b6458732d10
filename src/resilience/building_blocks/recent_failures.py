"""Recent failures by key (negative caching): each is remembered for a limited time.

RFC 2308 describes the idea for DNS.
"""

from collections import OrderedDict
from dataclasses import dataclass
from types import TracebackType

from ..clock import Clock

MAX_FAILURES = 1_000
"""The largest number of keys with a remembered failure. Beyond it, the oldest failure is removed."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception
    traceback: TracebackType | None  # that of the error grows each time the error is raised
    ends_at: float


class RecentFailures:
    """The failures of the last seconds.

    Args:
        seconds: The time for which a failure is remembered; 0: none is.
        clock: Measures that time.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._failures: OrderedDict[str, _Failure] = OrderedDict()

    def add(self, key: str, error: Exception) -> None:
        """Remember `error` under `key`, instead of an earlier one."""
        if not self._seconds:
            return
        ends_at = self._clock.monotonic() + self._seconds
        self._failures[key] = _Failure(error, error.__traceback__, ends_at)
        self._failures.move_to_end(key)
        if len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)

    def get(self, key: str) -> Exception | None:
        """Return the error under `key`, with the traceback of its first time; None if there is none."""
        failure = self._failures.get(key)
        if failure is None:
            return None
        if self._clock.monotonic() < failure.ends_at:
            return failure.error.with_traceback(failure.traceback)
        del self._failures[key]
        return None

    def forget(self, key: str) -> None:
        """Remove the failure under `key`."""
        self._failures.pop(key, None)
