"""Where a circuit breaker has its state, and the rules by which that changes.

::

              too many failures              open long enough
    CLOSED ──────────────────────▶ OPEN ──────────────────────▶ HALF_OPEN
       ▲                            ▲         next call probes     │   │
       │                            └───── too many probes fail ───┘   │
       └──────────────────────────────────── enough probes succeed ────┘

By hand it can be forced open, and forced closed: then it counts and never opens. The states and their names
are Polly's and resilience4j's. From gobreaker comes the generation: every change of state begins a new one,
a call carries the one it was admitted in, and its outcome counts in no other.

`BreakerStore` is the port; its form for one process is in `memory_breaker_store`.
"""

import math
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

TRANSITIONS_KEPT = 20
DEFAULT_FAILURE_THRESHOLD = 5
SHORTEST_RENEWAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerOptions:
    """When a breaker opens, for how long, and what it takes to close it again.

    Attributes:
        failure_threshold: Opens at this many failures in a row, at least 1. None: at 5 where no rate is set,
            and not by that where one is.
        failure_rate_threshold: Opens at this share of failed calls in the window, in (0, 1]; None: not by
            that.
        slow_call_rate_threshold: Opens at this share of slow calls in the window, in (0, 1]; None: not by
            that. Where it is set, a slow probe does not close the breaker either.
        slow_call_seconds: A call that took this long is slow; set exactly where the rate is.
        window_calls: Length of the window in calls, at least 1, unless `window_seconds` is set.
        window_seconds: Length of the window in seconds, exact to a tenth of it; None: it is told in calls.
        minimum_calls: Calls the window must hold before a rate means anything, at least 1.
        open_seconds: How long the breaker stays open.
        open_seconds_factor: What that grows by each time probing fails, at least 1, which is not at all.
        open_seconds_max: What it grows to; needed with a factor above 1.
        half_open_permits: Calls let through to probe, at least 1; all the others are rejected meanwhile.
        half_open_successes: How many of these must succeed, from 1 to all; None: all, or the share below.
        half_open_success_rate: What share of them must succeed, in (0, 1], rounded up to whole probes; None:
            all, or the number above. Only one of the two can be set.
        probe_lease_seconds: How long a probe may take before its permit goes to another caller. Longer than
            the longest call. If its process dies, that takes no longer than `open_seconds`: see
            `probe_renewal_seconds`.

    Every duration is finite and at least a millisecond.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
    """

    failure_threshold: int | None = None
    failure_rate_threshold: float | None = None
    slow_call_rate_threshold: float | None = None
    slow_call_seconds: float | None = None
    window_calls: int = 100
    window_seconds: float | None = None
    minimum_calls: int = 10
    open_seconds: float = 30.0
    open_seconds_factor: float = 1.0
    open_seconds_max: float | None = None
    half_open_permits: int = 1
    half_open_successes: int | None = None
    half_open_success_rate: float | None = None
    probe_lease_seconds: float = 30.0

    def __post_init__(self) -> None:
        for counted in _COUNTS:
            value = getattr(self, counted)
            _require(value is None or value >= 1, counted, "must be at least 1")
        for share in _SHARES:
            value = getattr(self, share)
            _require(value is None or 0 < value <= 1, share, "must be above 0 and at most 1")
        for duration in _DURATIONS:
            value = getattr(self, duration)
            _require(value is None or 0.001 <= value < math.inf, duration, "must be finite, at least 0.001")
        _require(
            (self.slow_call_seconds is None) == (self.slow_call_rate_threshold is None),
            "slow_call_seconds",
            "and slow_call_rate_threshold go together",
        )
        _require(
            self.window_seconds is not None or self.minimum_calls <= self.window_calls,
            "minimum_calls",
            "must not exceed window_calls",
        )
        _require(
            1 <= self.open_seconds_factor < math.inf, "open_seconds_factor", "must be finite, at least 1"
        )
        _require(
            self.open_seconds_factor == 1 or self.open_seconds_max is not None,
            "open_seconds_max",
            "is needed with open_seconds_factor",
        )
        _require(
            self.open_seconds_max is None or self.open_seconds_max >= self.open_seconds,
            "open_seconds_max",
            "must not be below open_seconds",
        )
        _require(
            self.half_open_successes is None or self.half_open_successes <= self.half_open_permits,
            "half_open_successes",
            "must not exceed half_open_permits",
        )
        _require(
            self.half_open_success_rate is None or self.half_open_successes is None,
            "half_open_success_rate",
            "and half_open_successes exclude one another",
        )

    @property
    def failures_to_open(self) -> int | None:
        """How many failures in a row open the breaker; None: no number of them."""
        has_rate = self.failure_rate_threshold is not None or self.slow_call_rate_threshold is not None
        if self.failure_threshold is None and not has_rate:
            return DEFAULT_FAILURE_THRESHOLD
        return self.failure_threshold

    @property
    def probe_renewal_seconds(self) -> float:
        """For how long a probe gets its permit, and again with each renewal, in seconds.

        No longer than the breaker stays open, so that a probe whose process died holds it up no longer than a
        failed one; but a second where that is shorter, since a worker cannot renew in time much sooner.
        """
        return min(self.probe_lease_seconds, max(self.open_seconds, SHORTEST_RENEWAL_SECONDS))

    @property
    def successes_to_close(self) -> int:
        """How many probes must succeed."""
        if self.half_open_success_rate is not None:
            # A hair less, or 0.07 of 100, which comes to 7.000000000000001, would be 8.
            return math.ceil(self.half_open_success_rate * self.half_open_permits * (1 - 1e-9))
        return self.half_open_successes or self.half_open_permits


_COUNTS = ("failure_threshold", "window_calls", "minimum_calls", "half_open_permits", "half_open_successes")
_SHARES = ("failure_rate_threshold", "slow_call_rate_threshold", "half_open_success_rate")
_DURATIONS = (
    "slow_call_seconds", "window_seconds", "open_seconds", "open_seconds_max", "probe_lease_seconds",
)  # fmt: skip


def _require(holds: bool, option: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"{option} {rule}")


class BreakerState(StrEnum):
    """What a breaker looks like from outside: forced open is OPEN, forced closed is CLOSED."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class ManualState(Enum):
    """What can be ordered by hand; the value is the reason given for the transition."""

    CLOSED = "closed by hand"
    FORCED_OPEN = "forced open"
    FORCED_CLOSED = "forced closed"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state at the Unix time `at`, and why."""

    at: float
    before: BreakerState
    after: BreakerState
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker at one moment.

    Attributes:
        state: An open breaker whose time is up reads HALF_OPEN: the next call will be its probe.
        name: The breaker's.
        failure_count: Failures in a row, which `failure_threshold` is compared with. A success and closing
            set it to 0; opening does not, so an open breaker still shows the count that opened it.
        success_count: Calls in the window that did not fail. The window begins anew when the breaker closes.
        failure_rate: Share of failed calls in the window, 0 where it is empty.
        opened_at: Unix time at which it last opened; None while closed.
        retry_after: Seconds until a call may be let through; None where one would be now, and where only
            an order can change that.
        transitions: The last 20 changes of state, oldest first.
    """

    state: BreakerState
    name: str
    failure_count: int
    success_count: int
    failure_rate: float
    opened_at: float | None
    retry_after: float | None
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to make a call.

    Attributes:
        origin: The store that gave it. No other can make sense of it.
        generation: The one the call belongs to.
        probe: The permit it holds while the breaker is half-open, else None.
        transition: The change of state that admitting it made.
    """

    origin: "BreakerStore"
    generation: int
    probe: str | None = None
    transition: Transition | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """No leave: `reason` in words, and the seconds (above 0) after which a call may be let through.

    `retry_after` is None where only an order lets a call through.
    """

    reason: str
    retry_after: float | None


class BreakerStore(Protocol):
    """Where breakers, told apart by name, have their state. Each method is one atomic decision.

    Everybody who shares a breaker must bring the same options for it.
    """

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now. Every ticket is to be recorded or released."""
        ...

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | None:
        """Count the outcome of a call, unless its generation is over or its permit was given to another.

        Returns:
            The change of state that this very outcome made.
        """
        ...

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit for `probe_renewal_seconds` from now; return False if it is lost."""
        ...

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome.

        It neither waits nor fails, since a coroutine that is being closed can do neither: a store that asks a
        server does so in the background, and if that comes to nothing the permit's lease runs out.
        """
        ...

    async def force(self, name: str, options: CircuitBreakerOptions, order: ManualState) -> Transition | None:
        """Put the breaker into a state by hand, and return the transition if the state changed.

        `ManualState.CLOSED` begins a new generation with empty counts, even if the breaker was closed before.
        """
        ...

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands. Changes nothing."""
        ...
