"""Circuit breakers of one process: the `BreakerStore` in memory, and its states as objects.

A state object lives for one generation; what it does is what the breaker does in that state. The scripts in
this folder keep the same rules, and one contract suite holds both to them.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import ClassVar

from ..clock import SYSTEM_CLOCK, Clock
from .health_window import CountWindow, HealthWindow, TimeWindow
from .options import CircuitBreakerOptions
from .store import (
    TRANSITIONS_KEPT,
    BreakerState,
    BreakerStatus,
    BreakerStore,
    ManualState,
    Refusal,
    Ticket,
    Transition,
    WouldOpen,
)


class MemoryBreakerStore:
    """Breakers of one process, on one event loop. Never suspends, so each decision is atomic.

    Args:
        clock: Durations go by its monotonic reading, the times shown by its time of day.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        return circuit.state.admit()

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        if ticket.generation != circuit.generation:
            return None
        return circuit.state.record(ticket, failed=failed, slow=slow)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        if ticket.probe is None or ticket.probe not in circuit.leases:
            return False
        circuit.lend_until_renewal(ticket.probe)
        return True

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome."""
        circuit = self._circuits[name]
        if ticket.generation == circuit.generation:
            circuit.state.release(ticket)

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        order: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Go to the state ordered."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        state = _STATE_ORDERED[order]
        circuit.ordered_seconds = open_seconds if order is ManualState.OPEN else None
        if type(circuit.state) is not state:
            return circuit.enter(state, order.value)
        if order in {ManualState.CLOSED, ManualState.OPEN}:
            circuit.begin(state)
        return None

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        state, retry_after = circuit.state.outlook()
        health = circuit.window.health()
        return BreakerStatus(
            state=state,
            name=name,
            failure_count=circuit.failures_in_a_row,
            success_count=health.calls - health.failures,
            failure_rate=health.failures / health.calls if health.calls else 0.0,
            opened_at=circuit.opened_at,
            retry_after=retry_after,
            transitions=tuple(circuit.transitions),
        )

    def _add_circuit(self, name: str, options: CircuitBreakerOptions) -> "_Circuit":
        circuit = self._circuits[name] = _Circuit(self, options, self._clock)
        return circuit


class _Circuit:
    """What the states of one breaker share. A state object lives for one generation."""

    window: HealthWindow
    state: "_State"

    def __init__(self, store: BreakerStore, options: CircuitBreakerOptions, clock: Clock) -> None:
        self.store = store
        self.options = options
        self.failures_to_open = options.failures_to_open or math.inf
        rates = (options.failure_rate_threshold, options.slow_call_rate_threshold)
        self.has_window_rule = options.failures_in_window is not None or any(
            rate is not None for rate in rates
        )
        self.clock = clock
        self.transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self.generation = 0
        self.probes = 0
        self.leases: dict[str, float] = {}  # probe → when its permit goes to another
        self.ordered_seconds: float | None = None  # how long it is open by order
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
        self.openings = 0
        self.opened_at: float | None = None

    def count(self, *, failed: bool, slow: bool) -> str | None:
        """Count an outcome; return why the breaker opens now, or None."""
        self.window.record(failed=failed, slow=slow)
        self.failures_in_a_row = self.failures_in_a_row + 1 if failed else 0
        return self.why_open() if failed or self.has_window_rule else None

    def lend_permit(self, transition: Transition | None = None) -> Ticket:
        self.probes += 1
        probe = f"{self.generation}-{self.probes}"
        self.lend_until_renewal(probe)
        return Ticket(self.store, self.generation, probe, transition)

    def lend_until_renewal(self, probe: str) -> None:
        self.leases[probe] = self.clock.monotonic() + self.options.probe_renewal_seconds

    def why_open(self) -> str | None:
        if self.failures_in_a_row >= self.failures_to_open:
            return f"failures in a row: {self.failures_in_a_row}"
        if not self.has_window_rule:
            return None
        options = self.options
        failure_rate, slow_rate = options.failure_rate_threshold, options.slow_call_rate_threshold
        calls, failures, slow = self.window.health()
        if options.failures_in_window is not None and failures >= options.failures_in_window:
            return f"failures in the window: {failures}"
        if calls < options.minimum_calls:
            failure_rate = slow_rate = None
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
    ) -> Transition | WouldOpen | None:
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
        self.would_open = False

    def admit(self) -> Ticket:
        return self.ticket

    def record(self, _ticket: Ticket, *, failed: bool, slow: bool) -> Transition | WouldOpen | None:
        reason, was_reported = self.circuit.count(failed=failed, slow=slow), self.would_open
        self.would_open = reason is not None
        return None if reason is None or was_reported else WouldOpen(reason)


class _Closed(_ForcedClosed):
    def record(self, _ticket: Ticket, *, failed: bool, slow: bool) -> Transition | None:
        reason = self.circuit.count(failed=failed, slow=slow)
        return None if reason is None else self.circuit.enter(_Open, reason)


class _ForcedOpen(_State):
    reading = BreakerState.OPEN

    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        circuit.opened_at = circuit.clock.now()

    def admit(self) -> Ticket | Refusal:
        return Refusal("the circuit is forced open", None)


class _Open(_ForcedOpen):
    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        seconds, circuit.ordered_seconds = circuit.ordered_seconds, None
        if seconds is None:
            circuit.openings += 1
            seconds = circuit.options.open_seconds_at(circuit.openings)
        self.until = circuit.clock.monotonic() + seconds

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


_STATE_ORDERED: dict[ManualState, type[_State]] = {
    ManualState.CLOSED: _Closed,
    ManualState.OPEN: _Open,
    ManualState.FORCED_OPEN: _ForcedOpen,
    ManualState.FORCED_CLOSED: _ForcedClosed,
}
