"""Events: a policy sends a frozen record of each decision to its listener.

A policy calls its listener after the decision, while it holds no lock or permit. An error of a listener is
logged here and does not reach the caller. Adapters that convert events into logs or metrics are not part of
this package.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, ParamSpec, Protocol, TypeAlias

P = ParamSpec("P")

_log = logging.getLogger(__name__)

CallOutcome: TypeAlias = Literal["succeeded", "failed", "timed_out", "rejected", "cancelled"]
"""The outcome of a call: see `CallFinished`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of every event.

    Attributes:
        policy: The name of the policy that decided, such as "external-service".
        times: The number of events that this event stands for. Its other attributes are those of the first
            event.
    """

    policy: str
    times: int = 1

    def details(self) -> dict[str, object]:
        """Return the attributes by name, without `times` if it is 1."""
        details = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.times == 1:
            del details["times"]
        return details


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A call of a policy ended. Every policy reports this once for each `run`, however it is called.

    A cache reports it once for each answer or error that a caller gets.

    Attributes:
        pattern: Class of the policy, such as "CircuitBreaker".
        outcome: "succeeded" where the policy returned, also a substitute. "rejected" where this policy or an
            inner one did not start the call. "timed_out" where this policy or an inner one stopped it.
            "cancelled" where the caller did. "failed" for every other error, and for a result that the
            policy's `is_failure_result` calls a failure. An error that the `is_failure` of a circuit breaker
            calls no failure is "succeeded".
        duration_seconds: From the start of `run` to its end, waits and retries included; at least 0. For a
            cache, from the moment at which the caller waits for the answer.
        error: The error that the policy raised; None if it returned a result.
    """

    pattern: str
    outcome: CallOutcome
    duration_seconds: float
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Event):
    """A call was rejected before it began. `retry_after` is in seconds, or None if the time is not known."""

    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited(Event):
    """A call began after a wait for its policy. `seconds` is the wait, or the longest of `times` waits."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTaken(Event):
    """A call got its slot in a paced queue, after a wait of `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """A circuit breaker changed its state for a `reason`, for example from "CLOSED" to "OPEN"."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldHaveOpened(Event):
    """A circuit breaker that is forced closed would have opened for a `reason`.

    The event is sent once. It is sent again only after a moment at which no rule would have opened the
    breaker.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeLost(Event):
    """A circuit breaker did not count the outcome of a call, because its store failed with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStarted(Event):
    """A half-open circuit breaker admitted a call as a probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """Attempt number `attempt` (from 1) failed with `error`. The next attempt starts in `delay` seconds."""

    attempt: int
    delay: float
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriesExhausted(Event):
    """The last of `attempts` attempts failed with `error`.

    No further attempt is allowed: the limit is reached, the time is too short, the retry budget is used up,
    or the call refused another attempt.
    """

    attempts: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(Event):
    """A call was stopped after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(Event):
    """A fallback answered instead of a call that failed with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypassed(Event):
    """A policy admitted a call without a decision, because its store failed with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAnswered(Event):
    """A cache answered. `outcome` is "hit", "miss", "updating" or "stale"."""

    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRefreshed(Event):
    """A cache computed an entry. `early` is true if the previous entry had not expired yet."""

    early: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRefreshFailed(Event):
    """A computation in the background failed with `error`.

    The cache continues to serve the previous answer.
    """

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(Event):
    """Attempt number `attempt` (from 2) began, because no earlier attempt had answered in time."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgedAttemptFailed(Event):
    """Attempt number `attempt` (from 1) failed with `error` while another attempt was still running."""

    attempt: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeWon(Event):
    """Attempt number `attempt` (from 2) was the first to succeed."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChanged(Event):
    """The largest number of concurrent calls changed from `before` to `after`."""

    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """A chaos policy changed a call. `kind` is "fault", "latency" or "outcome"."""

    kind: str


class Listener(Protocol):
    """Receives the events of a policy."""

    def __call__(self, event: Event, /) -> None:
        """Handle `event`. This must not block: it runs on the event loop, and the caller waits for it."""
        ...


def ignore(event: Event) -> None:
    """Ignore the event. This is the default listener."""


class _Without:
    """See `without`."""

    __slots__ = ("_listener", "kinds")

    def __init__(self, listener: Listener, kinds: tuple[type[Event], ...]) -> None:
        self._listener = listener
        self.kinds = kinds

    def __call__(self, event: Event, /) -> None:
        if not isinstance(event, self.kinds):
            self._listener(event)


def without(listener: Listener, *kinds: type[Event]) -> Listener:
    """Return a listener that passes all events to `listener` but those of `kinds`.

    A policy whose listener leaves out `CallFinished` spends no time on it.
    """
    return _Without(listener, kinds)


def accepts(listener: Listener, kind: type[Event]) -> bool:
    """Return whether events of `kind` have an effect on `listener`."""
    if isinstance(listener, _Without):
        return not issubclass(kind, listener.kinds)
    return listener is not ignore


def each(*observers: Callable[P, object]) -> Callable[P, None]:
    """Return a function that calls all `observers`, such as listeners, in order.

    An error of an observer is logged, and the other observers are still called.
    """

    def call_all(*args: P.args, **kwargs: P.kwargs) -> None:
        for observer in observers:
            try:
                observer(*args, **kwargs)
            except Exception:  # noqa: BLE001 -- an observer's error must not stop the others
                _log.exception("an observer failed")

    return call_all


def notify(listener: Listener, event: Event) -> None:
    """Call `listener` with `event`. An error of the listener is logged and not raised."""
    try:
        listener(event)
    except Exception:  # noqa: BLE001 -- a listener's error must not reach the caller
        _log.exception("a listener failed on %s", type(event).__name__)
