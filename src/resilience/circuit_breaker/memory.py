"""The circuit breakers of one process: the `BreakerStore` in memory, with an object for each state.

A state object exists for one generation, and implements the behaviour of the breaker in that state. The Lua
scripts in this folder implement the same rules. One contract suite tests both implementations.
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
    """The breakers of one process, on one event loop. No method suspends, so each decision is atomic.

    Args:
        clock: Its monotonic time measures durations. Its Unix time dates the transitions.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether to admit a call."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        return circuit.state.admit()

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        if ticket.generation != circuit.generation:
            return None
        return circuit.state.record(ticket, failed, slow)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Renew the permit of a probe."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        if ticket.probe is None or ticket.probe not in circuit.leases:
            return False
        circuit.start_lease(ticket.probe)
        return True

    def release(self, name: str, ticket: Ticket) -> None:
        """Release the permit of a call without an outcome."""
        circuit = self._circuits[name]
        if ticket.generation == circuit.generation:
            circuit.state.release(ticket)

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        manual_state: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Change the state by hand."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        state = _STATE_TYPES[manual_state]
        circuit.forced_seconds = open_seconds if manual_state is ManualState.OPEN else None
        if type(circuit.state) is not state:
            return circuit.enter(state, manual_state.value)
        if manual_state in {ManualState.CLOSED, ManualState.OPEN}:
            circuit.begin(state)
        return None

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return the status of the breaker."""
        circuit = self._circuits.get(name) or self._add_circuit(name, options)
        state, retry_after = circuit.state.current_status()
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
    """The data of one breaker that its states share."""

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
        self.leases: dict[str, float] = {}  # probe → the monotonic time at which its lease expires
        self.forced_seconds: float | None = None  # the open time, if it was set by hand
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

    def reset_counts(self) -> None:
        seconds = self.options.window_seconds
        self.window = (
            CountWindow(self.options.window_calls) if seconds is None else TimeWindow(seconds, self.clock)
        )
        self.failures_in_a_row = 0
        self.openings = 0
        self.opened_at: float | None = None

    def count(self, failed: bool, slow: bool) -> str | None:
        """Count an outcome. Return the reason why the breaker opens now, or None."""
        self.window.record(failed, slow)
        self.failures_in_a_row = self.failures_in_a_row + 1 if failed else 0
        return self.reason_to_open() if failed or self.has_window_rule else None

    def lend_permit(self, transition: Transition | None = None) -> Ticket:
        self.probes += 1
        probe = f"{self.generation}-{self.probes}"
        self.start_lease(probe)
        return Ticket(self.store, self.generation, probe, transition)

    def start_lease(self, probe: str) -> None:
        self.leases[probe] = self.clock.monotonic() + self.options.probe_renewal_seconds

    def reason_to_open(self) -> str | None:
        """Return the reason why the breaker must open, or None if no rule applies."""
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
    """The behaviour of a breaker in one state.

    A state records and releases only the calls that it admitted.
    """

    reading: ClassVar[BreakerState]

    def __init__(self, circuit: _Circuit) -> None:
        self.circuit = circuit

    @abstractmethod
    def admit(self) -> Ticket | Refusal:
        """Admit or refuse a call."""

    def record(  # noqa: B027 -- the open states admit no calls, and have no outcomes to count
        self, ticket: Ticket, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count an outcome."""

    def release(self, ticket: Ticket) -> None:  # noqa: B027 -- only half-open has permits
        """Release a permit."""

    def current_status(self) -> tuple[BreakerState, float | None]:
        """Return `state` and `retry_after` of the `BreakerStatus`."""
        return self.reading, None


class _ForcedClosed(_State):
    reading = BreakerState.CLOSED

    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        circuit.reset_counts()
        self.ticket = Ticket(
            circuit.store, circuit.generation
        )  # shared by all calls, to save an allocation for each
        self.would_open = False

    def admit(self) -> Ticket:
        return self.ticket

    def record(self, _ticket: Ticket, failed: bool, slow: bool) -> Transition | WouldOpen | None:
        reason, was_reported = self.circuit.count(failed, slow), self.would_open
        self.would_open = reason is not None
        return None if reason is None or was_reported else WouldOpen(reason)


class _Closed(_ForcedClosed):
    def record(self, _ticket: Ticket, failed: bool, slow: bool) -> Transition | None:
        reason = self.circuit.count(failed, slow)
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
        seconds, circuit.forced_seconds = circuit.forced_seconds, None
        if seconds is None:
            circuit.openings += 1
            seconds = circuit.options.open_seconds_at(circuit.openings)
        self.until = circuit.clock.monotonic() + seconds

    def admit(self) -> Ticket | Refusal:
        wait = self.until - self.circuit.clock.monotonic()
        if wait > 0:
            return Refusal("the circuit is open", wait)
        return self.circuit.lend_permit(self.circuit.enter(_HalfOpen, "the open time is over"))

    def current_status(self) -> tuple[BreakerState, float | None]:
        wait = self.until - self.circuit.clock.monotonic()
        return (BreakerState.OPEN, wait) if wait > 0 else (BreakerState.HALF_OPEN, None)


class _HalfOpen(_State):
    reading = BreakerState.HALF_OPEN

    def __init__(self, circuit: _Circuit) -> None:
        super().__init__(circuit)
        self.successes = 0
        self.failures = 0

    def admit(self) -> Ticket | Refusal:
        _, wait = self.current_status()
        if wait is not None:
            return Refusal("the circuit is half-open and its probes are out", wait)
        now, leases = self.circuit.clock.monotonic(), self.circuit.leases
        for expired in [probe for probe, end in leases.items() if end <= now]:
            del leases[expired]
        return self.circuit.lend_permit()

    def record(self, ticket: Ticket, failed: bool, slow: bool) -> Transition | None:
        circuit, options = self.circuit, self.circuit.options
        if ticket.probe is None or circuit.leases.pop(ticket.probe, None) is None:
            return None
        circuit.count(failed, slow)
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

    def current_status(self) -> tuple[BreakerState, float | None]:
        now = self.circuit.clock.monotonic()
        waits = [end - now for end in self.circuit.leases.values() if end > now]
        is_free = self.successes + self.failures + len(waits) < self.circuit.options.half_open_permits
        return self.reading, None if is_free else min(waits)


_STATE_TYPES: dict[ManualState, type[_State]] = {
    ManualState.CLOSED: _Closed,
    ManualState.OPEN: _Open,
    ManualState.FORCED_OPEN: _ForcedOpen,
    ManualState.FORCED_CLOSED: _ForcedClosed,
}
