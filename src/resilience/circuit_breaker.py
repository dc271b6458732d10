"""The circuit breaker: stop calling what does not answer, and find out with few calls when it does again.

::

              too many failures              open long enough
    CLOSED ──────────────────────▶ OPEN ──────────────────────▶ HALF_OPEN
       ▲                            ▲         next call probes     │   │
       │                            └──────────── a probe fails ───┘   │
       └──────────────────────────────────── enough probes succeed ────┘

By hand it can be forced open, and forced closed: then it counts and never opens. The states and their names
are Polly's and resilience4j's. From gobreaker comes the generation: every change of state begins a new one,
a call carries the one it was admitted in, and its outcome counts in no other.

`CircuitBreaker` runs the calls and tells what happened. A `BreakerStore` holds the state and decides:
`MemoryBreakerStore` for one process, others for a fleet, all of the same contract.
"""

import asyncio
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import ClassVar, Protocol, TypeVar

from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError
from src.resilience.events import Listener, ProbeStarted, Rejected, StateChanged, ignore, notify
from src.resilience.health_window import CountWindow, HealthWindow, TimeWindow
from src.resilience.policy import Call

T = TypeVar("T")

TRANSITIONS_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerOptions:
    """When a breaker opens, for how long, and what it takes to close it again.

    Attributes:
        failure_threshold: Opens at this many failures in a row, at least 1; None: not by that.
        failure_rate_threshold: Opens at this share of failed calls in the window, in (0, 1]; None: not by
            that.
        slow_call_rate_threshold: Opens at this share of slow calls in the window, in (0, 1]; None: not by
            that. Where it is set, a slow probe does not close the breaker either.
        slow_call_seconds: A call that took this long is slow; set exactly where the rate is.
        window_calls: Length of the window in calls, at least 1, unless `window_seconds` is set.
        window_seconds: Length of the window in seconds, exact to a tenth of it; None: it is told in calls.
        minimum_calls: Calls the window must hold before a rate means anything, at least 1.
        open_seconds: How long the breaker stays open.
        open_seconds_factor: What that grows by each time a probe fails, at least 1, which is not at all.
        open_seconds_max: What it grows to; needed with a factor above 1.
        half_open_permits: Calls let through to probe, at least 1; all the others are rejected meanwhile.
        half_open_successes: How many of these must succeed, from 1 to all; None: all.
        probe_lease_seconds: How long a probe may take before its permit goes to another caller, in case
            the one who had it died. Longer than the longest call.

    Every duration is finite and at least a millisecond.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
    """

    failure_threshold: int | None = 5
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
            any(getattr(self, threshold) is not None for threshold in ("failure_threshold", *_SHARES)),
            "failure_threshold",
            "is None and so is every rate: nothing would open the breaker",
        )
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

    @property
    def successes_to_close(self) -> int:
        """How many probes must succeed."""
        return self.half_open_successes or self.half_open_permits


_COUNTS = ("failure_threshold", "window_calls", "minimum_calls", "half_open_permits", "half_open_successes")
_SHARES = ("failure_rate_threshold", "slow_call_rate_threshold")
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


class Order(Enum):
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
        failure_count: Failed calls in the window. It begins anew when the breaker closes, so an open one
            still shows what opened it.
        success_count: The other calls in the window.
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
    """No leave: `reason` in words, and the seconds (above 0) after which a call may be let through."""

    reason: str
    retry_after: float


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

    async def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome."""
        ...

    async def obey(self, name: str, options: CircuitBreakerOptions, order: Order) -> Transition | None:
        """Go to the state ordered, and return the change if it is one.

        `Order.CLOSED` begins a new generation with empty counts even where the breaker was closed already.
        """
        ...

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands. Changes nothing."""
        ...


def any_error_fails(error: Exception) -> bool | None:
    """Judge every error a failure, but for a rejection by a policy further in: that call was not begun."""
    return None if isinstance(error, RejectedError) else True


class CircuitBreaker:
    """Runs calls while the thing called is well, and rejects them while it is not.

    Args:
        name: Tells this breaker from others in the same store, in events and in errors.
        store: Holds its state and decides.
        options: When it opens and closes.
        clock: Measures the calls.
        listener: Told of `StateChanged`, `ProbeStarted` and `Rejected`. Of the workers that share a store,
            the one whose call changed the state tells of it.
        is_failure: Judges what a call raised: True is a failure; False a success, since the service did
            answer; None neither. A cancellation is not asked about: it is neither.
    """

    def __init__(
        self,
        name: str,
        store: BreakerStore,
        options: CircuitBreakerOptions,
        clock: Clock,
        *,
        listener: Listener = ignore,
        is_failure: Callable[[Exception], bool | None] = any_error_fails,
    ) -> None:
        self.name = name
        self._store = store
        self._options = options
        self._clock = clock
        self._listener = listener
        self._is_failure = is_failure
        self._slow_seconds = options.slow_call_seconds or math.inf

    async def run(self, call: Call[T]) -> T:
        """Run `call` if the breaker lets it, and count how it went.

        Raises:
            CircuitOpenError: The breaker is open, or half-open with every permit out.
            BaseException: Whatever the call raised, as it came.
        """
        ticket = await self._admit()
        began = self._clock.monotonic()
        try:
            result = await call()
        except asyncio.CancelledError:
            await self._store.release(self.name, ticket)
            raise
        except Exception as error:
            failed = self._is_failure(error)
            if failed is None:
                await self._store.release(self.name, ticket)
            else:
                await self._record(ticket, began, failed=failed)
            raise
        await self._record(ticket, began, failed=False)
        return result

    async def force_open(self) -> None:
        """Reject every call until told otherwise."""
        self._announce(await self._store.obey(self.name, self._options, Order.FORCED_OPEN))

    async def force_closed(self) -> None:
        """Let every call through and only count, until told otherwise."""
        self._announce(await self._store.obey(self.name, self._options, Order.FORCED_CLOSED))

    async def close(self) -> None:
        """Close the breaker with empty counts, whatever state it is in, and let it work by itself again."""
        self._announce(await self._store.obey(self.name, self._options, Order.CLOSED))

    async def status(self) -> BreakerStatus:
        """Return how the breaker stands."""
        return await self._store.status(self.name, self._options)

    async def _admit(self) -> Ticket:
        admission = await self._store.admit(self.name, self._options)
        if isinstance(admission, Refusal):
            notify(self._listener, Rejected(policy=self.name, retry_after=admission.retry_after))
            raise CircuitOpenError(self.name, admission.reason, admission.retry_after)
        if admission.probe is not None:
            self._announce(admission.transition)
            notify(self._listener, ProbeStarted(policy=self.name))
        return admission

    async def _record(self, ticket: Ticket, began: float, *, failed: bool) -> None:
        slow = self._clock.monotonic() - began >= self._slow_seconds
        self._announce(await self._store.record(self.name, self._options, ticket, failed=failed, slow=slow))

    def _announce(self, transition: Transition | None) -> None:
        if transition is not None:
            event = StateChanged(
                policy=self.name, before=transition.before, after=transition.after, reason=transition.reason
            )
            notify(self._listener, event)


class MemoryBreakerStore:
    """Breakers of one process, on one event loop. Never suspends, so each decision is atomic.

    Args:
        clock: Durations go by its monotonic reading, the times shown by its time of day.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now."""
        return self._circuit(name, options).state.admit()

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | None:
        """Count the outcome of a call."""
        circuit = self._circuit(name, options)
        if ticket.generation != circuit.generation:
            return None
        return circuit.state.record(ticket, failed=failed, slow=slow)

    async def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome."""
        circuit = self._circuits[name]
        if ticket.generation == circuit.generation:
            circuit.state.release(ticket)

    async def obey(self, name: str, options: CircuitBreakerOptions, order: Order) -> Transition | None:
        """Go to the state ordered."""
        circuit = self._circuit(name, options)
        state = _STATE_ORDERED[order]
        if type(circuit.state) is not state:
            return circuit.enter(state, order.value)
        if order is Order.CLOSED:
            circuit.begin(state)
        return None

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands."""
        circuit = self._circuit(name, options)
        state, retry_after = circuit.state.outlook()
        health = circuit.window.health()
        return BreakerStatus(
            state=state,
            name=name,
            failure_count=health.failures,
            success_count=health.calls - health.failures,
            failure_rate=health.failures / health.calls if health.calls else 0.0,
            opened_at=circuit.opened_at,
            retry_after=retry_after,
            transitions=tuple(circuit.transitions),
        )

    def _circuit(self, name: str, options: CircuitBreakerOptions) -> "_Circuit":
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = _Circuit(self, options, self._clock)
        return circuit


class _Circuit:
    """What the states of one breaker share. A state object lives for one generation."""

    window: HealthWindow
    state: "_State"

    def __init__(self, store: BreakerStore, options: CircuitBreakerOptions, clock: Clock) -> None:
        self.store = store
        self.options = options
        self.clock = clock
        self.transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self.generation = 0
        self.probes = 0
        self.leases: dict[str, float] = {}  # probe → when its permit goes to another
        self.begin(_Closed)

    def begin(self, state: "type[_State]") -> None:
        self.generation += 1
        self.leases.clear()
        self.state = state(self)

    def enter(self, state: "type[_State]", reason: str) -> Transition:
        transition = Transition(self.clock.now(), self.state.reading, state.reading, reason)
        self.begin(state)
        self.transitions.append(transition)
        return transition

    def clear(self) -> None:
        seconds = self.options.window_seconds
        self.window = (
            CountWindow(self.options.window_calls) if seconds is None else TimeWindow(seconds, self.clock)
        )
        self.failures_in_a_row = 0
        self.open_seconds: float | None = None
        self.opened_at: float | None = None

    def count(self, *, failed: bool, slow: bool) -> None:
        self.window.record(failed=failed, slow=slow)
        self.failures_in_a_row = self.failures_in_a_row + 1 if failed else 0

    def lend_permit(self, transition: Transition | None = None) -> Ticket:
        self.probes += 1
        probe = f"{self.generation}-{self.probes}"
        self.leases[probe] = self.clock.monotonic() + self.options.probe_lease_seconds
        return Ticket(self.store, self.generation, probe, transition)

    def why_open(self) -> str | None:
        options = self.options
        if options.failure_threshold is not None and self.failures_in_a_row >= options.failure_threshold:
            return f"failures in a row: {self.failures_in_a_row}"
        failure_rate, slow_rate = options.failure_rate_threshold, options.slow_call_rate_threshold
        if failure_rate is None and slow_rate is None:
            return None
        calls, failures, slow = self.window.health()
        if calls < options.minimum_calls:
            return None
        if failure_rate is not None and failures / calls >= failure_rate:
            return f"failed calls: {failures} of {calls}"
        if slow_rate is not None and slow / calls >= slow_rate:
            return f"slow calls: {slow} of {calls}"
        return None


class _State(ABC):
    """What a breaker does in one state. Only what is admitted in it is ever recorded or released in it."""

    reading: ClassVar[BreakerState]

    def __init__(self, circuit: _Circuit) -> None:
        self.circuit = circuit

    @abstractmethod
    def admit(self) -> Ticket | Refusal:
        """Let a call through, or not."""

    def record(  # noqa: B027 -- not every state has something to do
        self, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | None:
        """Count an outcome. The open states admit nothing, and so have nothing to count."""

    def release(self, ticket: Ticket) -> None:  # noqa: B027 -- likewise
        """Give back a permit. Only half-open has any."""

    def outlook(self) -> tuple[BreakerState, float | None]:
        """Return the state and the seconds to wait, as `BreakerStatus` has them."""
        return self.reading, None


class _ForcedClosed(_State):
    reading = BreakerState.CLOSED

    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        circuit.clear()
        self.ticket = Ticket(circuit.store, circuit.generation)  # the same for all: a call costs no object

    def admit(self) -> Ticket:
        return self.ticket

    def record(self, _ticket: Ticket, *, failed: bool, slow: bool) -> Transition | None:
        self.circuit.count(failed=failed, slow=slow)
        return None


class _Closed(_ForcedClosed):
    def record(self, _ticket: Ticket, *, failed: bool, slow: bool) -> Transition | None:
        self.circuit.count(failed=failed, slow=slow)
        reason = self.circuit.why_open()
        return None if reason is None else self.circuit.enter(_Open, reason)


class _ForcedOpen(_State):
    reading = BreakerState.OPEN

    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        circuit.opened_at = circuit.clock.now()

    def admit(self) -> Ticket | Refusal:
        return Refusal("the circuit is forced open", self.circuit.options.open_seconds)


class _Open(_ForcedOpen):
    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        options = circuit.options
        if circuit.open_seconds is None:
            circuit.open_seconds = options.open_seconds
        else:
            grown = circuit.open_seconds * options.open_seconds_factor
            circuit.open_seconds = min(grown, options.open_seconds_max or math.inf)
        self.until = circuit.clock.monotonic() + circuit.open_seconds

    def admit(self) -> Ticket | Refusal:
        wait = self.until - self.circuit.clock.monotonic()
        if wait > 0:
            return Refusal("the circuit is open", wait)
        return self.circuit.lend_permit(self.circuit.enter(_HalfOpen, "the open time is over"))

    def outlook(self) -> tuple[BreakerState, float | None]:
        wait = self.until - self.circuit.clock.monotonic()
        return (BreakerState.OPEN, wait) if wait > 0 else (BreakerState.HALF_OPEN, None)


class _HalfOpen(_State):
    reading = BreakerState.HALF_OPEN

    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        self.successes = 0
        self.failures = 0

    def admit(self) -> Ticket | Refusal:
        _, wait = self.outlook()
        if wait is not None:
            return Refusal("the circuit is half-open and its probes are out", wait)
        now, leases = self.circuit.clock.monotonic(), self.circuit.leases
        for overdue in [probe for probe, end in leases.items() if end <= now]:
            del leases[overdue]
        return self.circuit.lend_permit()

    def record(self, ticket: Ticket, *, failed: bool, slow: bool) -> Transition | None:
        circuit, options = self.circuit, self.circuit.options
        if ticket.probe is None or circuit.leases.pop(ticket.probe, None) is None:
            return None
        circuit.count(failed=failed, slow=slow)
        if failed or slow:
            self.failures += 1
        else:
            self.successes += 1
        if self.successes >= options.successes_to_close:
            return circuit.enter(_Closed, f"probes succeeded: {self.successes}")
        if self.failures > options.half_open_permits - options.successes_to_close:
            return circuit.enter(_Open, f"probes failed: {self.failures}")
        return None

    def release(self, ticket: Ticket) -> None:
        if ticket.probe is not None:
            self.circuit.leases.pop(ticket.probe, None)

    def outlook(self) -> tuple[BreakerState, float | None]:
        now = self.circuit.clock.monotonic()
        waits = [end - now for end in self.circuit.leases.values() if end > now]
        is_free = self.successes + self.failures + len(waits) < self.circuit.options.half_open_permits
        return self.reading, None if is_free else min(waits)


_STATE_ORDERED: dict[Order, type[_State]] = {
    Order.CLOSED: _Closed,
    Order.FORCED_OPEN: _ForcedOpen,
    Order.FORCED_CLOSED: _ForcedClosed,
}
