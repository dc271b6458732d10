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

`BreakerStore` is the port; its form for one process is in `memory`.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from .options import CircuitBreakerOptions

TRANSITIONS_KEPT = 20


class BreakerState(StrEnum):
    """What a breaker looks like from outside: forced open is OPEN, forced closed is CLOSED."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class ManualState(Enum):
    """What can be ordered by hand; the value is the reason given for the transition.

    The breaker also enters CLOSED and OPEN by itself, and leaves them by itself: OPEN after a time that is
    given with the order. FORCED_OPEN and FORCED_CLOSED last until the next order.
    """

    CLOSED = "closed by hand"
    OPEN = "opened by hand"
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
class WouldOpen:
    """A breaker that is forced closed would have opened, and why. Reported once, until no rule says so."""

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
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call, unless its generation is over or its permit was given to another.

        Returns:
            The change of state that this very outcome made, or would have made if the breaker were not forced
            closed.
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

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        order: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Put the breaker into a state by hand, and return the transition if the state changed.

        `ManualState.CLOSED` begins a new generation with empty counts, even if the breaker was closed before.
        `ManualState.OPEN` begins a new open time, even if the breaker was open before.

        Args:
            name: The breaker's name.
            options: Those of the breaker.
            order: The state.
            open_seconds: How long OPEN lasts, at least 0.001; None: as long as the options say. The other
                orders ignore it.
        """
        ...

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands. Changes nothing."""
        ...
