"""The port `BreakerStore`: the states of circuit breakers, and the rules of their changes.

::

              too many failures              open long enough
    CLOSED ──────────────────────▶ OPEN ──────────────────────▶ HALF_OPEN
       ▲                            ▲         next call probes     │   │
       │                            └───── too many probes fail ───┘   │
       └──────────────────────────────────── enough probes succeed ────┘

A breaker can also be forced open or forced closed by hand. A breaker that is forced closed counts outcomes
but never opens. The states and their names are those of Polly and resilience4j.

Generations are an idea of gobreaker: every change of state begins a new generation. A call belongs to the
generation in which it was admitted, and its outcome counts only in that generation.

`memory` and `redis` implement the port.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from .options import CircuitBreakerOptions

TRANSITIONS_KEPT = 20
"""The number of transitions that a store keeps for each breaker."""


class BreakerState(StrEnum):
    """The visible state of a breaker. A breaker that is forced open is OPEN; forced closed is CLOSED."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class ManualState(Enum):
    """A state that can be set by hand. The value is the reason of the transition.

    The breaker leaves CLOSED and OPEN by itself, according to its rules. FORCED_OPEN and FORCED_CLOSED last
    until another state is set by hand.
    """

    CLOSED = "closed by hand"
    OPEN = "opened by hand"
    FORCED_OPEN = "forced open"
    FORCED_CLOSED = "forced closed"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state from `before` to `after` at the Unix time `at`."""

    at: float
    before: BreakerState
    after: BreakerState
    reason: str


@dataclass(frozen=True, slots=True)
class WouldOpen:
    """The report that a breaker that is forced closed would have opened for `reason`.

    It is reported once, and again only after a moment at which no rule would have opened the breaker.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """The status of a breaker at one moment.

    Attributes:
        state: The visible state. An open breaker whose open time is over is HALF_OPEN, since the next call is
            a probe.
        name: The name of the breaker.
        failure_count: The number of failures in a row, which is compared with `failure_threshold`. A success
            or closing sets it to 0. Opening does not, so that an open breaker shows the count that opened it.
        success_count: The number of successful calls in the window. Closing the breaker empties the window.
        failure_rate: The share of failed calls in the window, 0 if the window is empty.
        opened_at: The Unix time of the last opening, or None while the breaker is closed.
        retry_after: Seconds until a call may be admitted. None: a call would be admitted now, or the breaker
            is forced open.
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
    """The admission of a call.

    Attributes:
        origin: The store that admitted the call. Pass the ticket to no other store.
        generation: The generation of the call.
        probe: The id of the probe if the breaker is half-open, otherwise None. A probe holds a permit.
        transition: The change of state that this admission caused, or None.
    """

    origin: "BreakerStore"
    generation: int
    probe: str | None = None
    transition: Transition | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of a call.

    Attributes:
        reason: The reason, as a text.
        retry_after: Seconds, above 0, after which a call may be admitted. None: the breaker is forced open.
    """

    reason: str
    retry_after: float | None


class BreakerStore(Protocol):
    """Holds the states of breakers by name. Each method is one atomic decision.

    All callers of a breaker must pass the same options.
    """

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether to admit a call. The caller must pass the ticket to `record` or `release`."""
        ...

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call, unless its generation or its lease has ended.

        Returns:
            The change of state that this outcome caused, or would have caused if the breaker were not forced
            closed.
        """
        ...

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Renew the permit of a probe for `probe_renewal_seconds` from now. Return False if it was lost."""
        ...

    def release(self, name: str, ticket: Ticket) -> None:
        """Release the permit of a call without an outcome.

        This neither waits nor fails, because it may run while a coroutine is being closed. A store on a
        server sends the release in the background. If the release fails, the permit is free when its lease
        expires.
        """
        ...

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        manual_state: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Set the state by hand, and return the transition if the state changed.

        `ManualState.CLOSED` begins a new generation with empty counts, even if the breaker was closed before.
        `ManualState.OPEN` begins a new open time, even if the breaker was open before.

        Args:
            name: The name of the breaker.
            options: The options of the breaker.
            manual_state: The new state.
            open_seconds: The time for which OPEN lasts, at least 0.001. None: the options determine it. It is
                ignored for other states.
        """
        ...

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return the status of the breaker, without a change to it."""
        ...
