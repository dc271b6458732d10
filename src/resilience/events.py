"""What the patterns report: a frozen record of each decision, handed to a listener.

A policy calls its listener after it has decided and outside anything it holds, so a listener can be slow or
broken and harms nobody: what it raises is logged here and goes no further. Adapters that turn events into
logs, metrics or a stream live outside this package.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, ParamSpec, Protocol, TypeAlias

P = ParamSpec("P")

_log = logging.getLogger(__name__)

CallOutcome: TypeAlias = Literal["succeeded", "failed", "timed_out", "rejected", "cancelled"]
"""How a call of a policy ended: see `CallFinished`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of every event.

    Attributes:
        policy: Name of the policy that decided, such as "external-service".
        times: How often it happened, where several are told as one: the first of them.
    """

    policy: str
    times: int = 1

    def details(self) -> dict[str, object]:
        """Return what the event says, by name; `times` only where it was more than once."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.times == 1:
            del told["times"]
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A call of a policy ended. Every policy reports this once for each `run`, however it is called.

    Attributes:
        pattern: Class of the policy, such as "CircuitBreaker".
        outcome: "succeeded" where the policy returned, also a substitute. "rejected" where this policy or an
            inner one did not start the call. "timed_out" where this policy or an inner one stopped it.
            "cancelled" where the caller did. "failed" for every other error, and for a result that the
            policy's `is_failure_result` calls a failure. An error that the `is_failure` of a circuit breaker
            calls no failure is "succeeded".
        duration_seconds: From the start of `run` to its end, waits and retries included; at least 0.
        error: What the policy raised; None where it returned.
    """

    pattern: str
    outcome: CallOutcome
    duration_seconds: float
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(Event):
    """A call was refused before it began. `retry_after` is in seconds; None if no time is known."""

    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited(Event):
    """A call began after a wait for its policy; `seconds` is the wait, the longest of `times` waits."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTaken(Event):
    """A call got its slot in a paced queue, after a wait of `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """A circuit breaker went from one state to another, such as "CLOSED" to "OPEN", and why."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldHaveOpened(Event):
    """A circuit breaker that is forced closed would have opened, and why. Sent once until no rule says so."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeLost(Event):
    """A circuit breaker did not count how a call ended, since its store did not answer (`error`)."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStarted(Event):
    """A half-open circuit breaker let one call through to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """Attempt number `attempt` (from 1) failed with `error`; the next one starts in `delay` seconds."""

    attempt: int
    delay: float
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriesExhausted(Event):
    """The last of `attempts` attempts failed with `error`.

    There is no other: as many as allowed were made, there is no time for it, or the retry budget is spent.
    """

    attempts: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(Event):
    """A call was stopped after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(Event):
    """A fallback answered in place of a call that failed with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypassed(Event):
    """A policy let a call through unexamined, since its store did not answer (`error`)."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAnswered(Event):
    """A cache answered: `outcome` is "hit", "miss", "updating" or "stale"."""

    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRefreshed(Event):
    """A cache computed an entry anew; `early` where the old one had not yet run out."""

    early: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRefreshFailed(Event):
    """A computation in the background failed with `error`; the answer it was to replace is still served."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedged(Event):
    """Attempt number `attempt` (from 2) began, since no earlier one had answered in time."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgedAttemptFailed(Event):
    """Attempt number `attempt` (from 1) failed with `error` while another was still under way."""

    attempt: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeWon(Event):
    """Attempt number `attempt` (from 2) was the first to succeed."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChanged(Event):
    """The number of calls that may be under way at once went from `before` to `after`."""

    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """A call was spoiled on purpose: `kind` is "fault", "latency" or "outcome"."""

    kind: str


class Listener(Protocol):
    """Somebody who wants to know."""

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`. Must not block: it runs on the event loop, in the caller's way."""
        ...


def ignore(event: Event) -> None:
    """Be the listener who does not want to know."""


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
    """Return what tells every one of `observers`, such as listeners, in order, whatever the others do."""

    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        for observer in observers:
            try:
                observer(*args, **kwargs)
            except Exception:  # noqa: BLE001 -- whatever one does wrong stays its own affair
                _log.exception("an observer failed")

    return tell


def notify(listener: Listener, event: Event) -> None:
    """Tell `listener` of `event`, and log whatever it raises."""
    try:
        listener(event)
    except Exception:  # noqa: BLE001 -- as above
        _log.exception("a listener failed on %s", type(event).__name__)
