"""Circuit breakers against a simple model, in random sequences of events."""

import itertools
import math

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, multiple, precondition, rule

from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import OPENINGS_COMPUTED, CircuitBreakerOptions
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.resilience.circuit_breaker.store import ManualState, Ticket, Transition, WouldOpen
from tests.contract.conftest import TEST_TIME
from tests.support.machines import StoreMachine, run_machine

NAME = "upstream"

quarters = st.integers(1, 48).map(lambda n: n / 4)  # exact in binary, and in µs
thresholds = st.sampled_from([None, None, 4, 1])  # None: 5 if there is no rate
rates = st.sampled_from([0.5, None, 0.1, 1.0])


def enough_probes(permits):
    number = st.fixed_dictionaries({"half_open_successes": st.none() | st.integers(1, permits)})
    share = st.fixed_dictionaries({"half_open_success_rate": st.sampled_from([0.25, 0.5, 0.7, 1])})
    return number | share


@st.composite
def breaker_options(draw):
    failure_threshold, failure_rate, slow_rate = draw(thresholds), draw(rates), draw(rates)
    permits = draw(st.integers(1, 4))
    window_calls = draw(st.integers(1, 6))
    open_seconds = draw(quarters)
    growing = {
        "open_seconds_factor": draw(st.sampled_from([1, 2])),
        "open_seconds_max": open_seconds * draw(st.integers(1, 5)),
    }
    return CircuitBreakerOptions(
        failure_threshold=failure_threshold,
        failures_in_window=draw(st.none() | st.none() | st.integers(1, window_calls)),
        failure_rate_threshold=failure_rate,
        slow_call_rate_threshold=slow_rate,
        slow_call_seconds=None if slow_rate is None else 1,
        window_calls=window_calls,
        window_seconds=draw(st.sampled_from([None, 2.5, 10.0])),
        minimum_calls=draw(st.integers(1, window_calls)),
        open_seconds=open_seconds,
        **draw(
            st.sampled_from([growing, growing, {"open_seconds_of": lambda opening: open_seconds * opening}])
        ),
        half_open_permits=permits,
        **draw(enough_probes(permits)),
        probe_lease_seconds=draw(quarters),
    )


class Model:
    """The simplest breaker: it keeps every call, and looks at all calls for each decision."""

    def __init__(self, options, clock):
        self.options, self.clock = options, clock
        first = options.open_seconds if options.open_seconds_of is None else options.open_seconds_of(1)
        self.lease = min(options.probe_lease_seconds, max(first, 1))
        has_other_rule = (
            options.failure_rate_threshold or options.slow_call_rate_threshold or options.failures_in_window
        )
        self.most_in_a_row = options.failure_threshold or (math.inf if has_other_rule else 5)
        self.state, self.era = "CLOSED", 0
        self.calls, self.probes, self.transitions = [], {}, []
        self.opened, self.open_for, self.openings = None, None, 0
        self.would_open = False

    @property
    def now(self):
        return self.clock.monotonic()

    def change_state(self, state, open_seconds=None):
        self.transitions.append(tuple(name.removeprefix("FORCED_") for name in (self.state, state)))
        self.begin(state, open_seconds)

    def begin(self, state, open_seconds=None):
        self.state, self.era, self.probes = state, self.era + 1, {}
        if state in ("CLOSED", "FORCED_CLOSED"):
            self.calls, self.opened, self.openings, self.would_open = [], None, 0, False
        elif state == "OPEN":
            self.open_for = open_seconds or self.next_open_seconds()
        if state in ("OPEN", "FORCED_OPEN"):
            self.opened = self.now

    def next_open_seconds(self):
        self.openings += 1
        if self.options.open_seconds_of is not None:
            return self.options.open_seconds_of(min(self.openings, OPENINGS_COMPUTED))
        longer = self.options.open_seconds * self.options.open_seconds_factor ** (self.openings - 1)
        return min(longer, self.options.open_seconds_max)

    def wait(self):
        """Return the seconds until a call is admitted; None if the breaker is forced open."""
        if self.state == "FORCED_OPEN":
            return None
        if self.state == "OPEN":
            return max(0, self.opened + self.open_for - self.now)
        ends = [probe for probe in self.probes.values() if not isinstance(probe, bool) and probe > self.now]
        done = [probe for probe in self.probes.values() if isinstance(probe, bool)]
        if self.state == "HALF_OPEN" and len(ends) + len(done) >= self.options.half_open_permits:
            return min(ends) - self.now
        return 0

    def admit(self, ticket):
        """Admit `ticket`, or return the wait."""
        wait = self.wait()
        if wait != 0:
            return wait
        if self.state == "OPEN":
            self.change_state("HALF_OPEN")
        if self.state == "HALF_OPEN":
            self.probes = {
                other: end for other, end in self.probes.items() if isinstance(end, bool) or end > self.now
            }
            self.probes[ticket] = self.now + self.lease
        return 0

    def record(self, era, ticket, failed, slow):
        """Count an outcome. Return whether a breaker that is forced closed would open because of it."""
        if era != self.era:
            return False
        if self.state == "HALF_OPEN":
            if isinstance(self.probes.get(ticket, True), bool):
                return False
            self.calls.append((self.now, failed, slow))
            self.probes[ticket] = not failed and not slow
            results = [result for result in self.probes.values() if isinstance(result, bool)]
            successes, to_come = results.count(True), self.options.half_open_permits - len(results)
            if self.is_enough(successes):
                self.change_state("CLOSED")
            elif not self.is_enough(successes + to_come):
                self.change_state("OPEN")
        else:
            self.calls.append((self.now, failed, slow))
            if self.state == "CLOSED" and self.exceeds_a_threshold():
                self.change_state("OPEN")
            elif self.state == "FORCED_CLOSED":
                before, self.would_open = self.would_open, self.exceeds_a_threshold()
                return self.would_open and not before
        return False

    def is_enough(self, successes):
        options = self.options
        if options.half_open_success_rate is not None:
            return successes / options.half_open_permits >= options.half_open_success_rate
        return successes >= (options.half_open_successes or options.half_open_permits)

    def release(self, era, ticket):
        if era == self.era and not isinstance(self.probes.get(ticket, True), bool):
            del self.probes[ticket]

    def renew(self, era, ticket):
        if era != self.era or isinstance(self.probes.get(ticket, True), bool):
            return False
        self.probes[ticket] = self.now + self.lease
        return True

    def window(self):
        if self.options.window_seconds is None:
            return self.calls[-self.options.window_calls :]
        tenth = self.options.window_seconds / 10
        running = math.floor(self.now / tenth)
        return [call for call in self.calls if math.floor(call[0] / tenth) > running - 10]

    def failures_in_a_row(self):
        return len(list(itertools.takewhile(lambda call: call[1], reversed(self.calls))))

    def exceeds_a_threshold(self):
        if self.failures_in_a_row() >= self.most_in_a_row:
            return True
        window = self.window()
        if sum(failed for _, failed, _ in window) >= (self.options.failures_in_window or math.inf):
            return True
        if len(window) < self.options.minimum_calls:
            return False
        failure_rate = sum(failed for _, failed, _ in window) / len(window)
        slow_rate = sum(slow for _, _, slow in window) / len(window)
        return failure_rate >= (self.options.failure_rate_threshold or math.inf) or slow_rate >= (
            self.options.slow_call_rate_threshold or math.inf
        )

    def status(self):
        wait = self.wait()
        reading = self.state.removeprefix("FORCED_")
        outcomes = [failed for _, failed, _ in self.window()]
        return (
            "HALF_OPEN" if self.state == "OPEN" and wait == 0 else reading,
            wait or None,
            None if self.opened is None else self.opened + self.clock.now() - self.now,
            self.failures_in_a_row(),
            outcomes.count(False),
            outcomes.count(True) / len(outcomes) if outcomes else 0,
            self.transitions[-20:],
        )


class BreakerMachine(StoreMachine):
    """Runs the same steps on a store and on the model, and compares their states after every step."""

    tickets = Bundle("tickets")

    @initialize(options=breaker_options())
    def set_up(self, options):
        self.options = options
        self.model = Model(options, self.clock)
        self.do(self.time.publish())
        if self.link is None:
            self.store = MemoryBreakerStore(self.clock)
        else:
            self.store = RedisBreakerStore(self.link, time_source=TEST_TIME)

    @rule(target=tickets)
    def admit(self):
        admission = self.do(self.store.admit(NAME, self.options))
        wait = self.model.admit(admission)
        if not isinstance(admission, Ticket):
            assert admission.retry_after == wait != 0
            return multiple()
        assert wait == 0
        assert (admission.probe is not None) == (self.model.state == "HALF_OPEN")
        return self.model.era, admission

    @rule(call=tickets, failed=st.booleans(), slow=st.booleans())
    def record(self, call, failed, slow):
        era, ticket = call
        slow = slow and self.options.slow_call_rate_threshold is not None
        before = len(self.model.transitions)
        transition = self.do(self.store.record(NAME, self.options, ticket, failed=failed, slow=slow))
        would_open = self.model.record(era, ticket, failed, slow)
        assert isinstance(transition, WouldOpen) == would_open
        assert isinstance(transition, Transition) == (len(self.model.transitions) > before)

    @rule(outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
    def make_calls(self, outcomes):
        for failed, slow in outcomes:
            if isinstance(call := self.admit(), tuple):
                self.record(call, failed, slow)

    @rule(call=tickets)
    def release(self, call):
        era, ticket = call
        self.act(lambda: self.store.release(NAME, ticket))
        self.model.release(era, ticket)

    @rule(call=tickets)
    def renew(self, call):
        era, ticket = call
        renewed = self.do(self.store.renew(NAME, self.options, ticket))
        assert renewed == self.model.renew(era, ticket)

    @precondition(lambda self: self.model.calls)  # there is no entry before the first call
    @rule(seconds=quarters)
    def pass_time(self, seconds):
        self.do(self.time.advance(seconds))

    @precondition(lambda self: self.model.wait())
    @rule()
    def wait_for_retry_after(self):
        self.pass_time(self.model.wait())

    @precondition(lambda self: len(self.model.transitions) % 4 == 3)  # rarely, so that other rules run too
    @rule(order=st.sampled_from(ManualState), seconds=st.none() | quarters)
    def order(self, order, seconds):
        self.do(self.store.force(NAME, self.options, order, seconds))
        if self.model.state != order.name:
            self.model.change_state(order.name, seconds)
        elif order in {ManualState.CLOSED, ManualState.OPEN}:
            self.model.begin(order.name, seconds)

    @invariant()
    def store_agrees_with_the_model(self):
        status = self.do(self.store.status(NAME, self.options))
        assert self.model.status() == (
            status.state,
            status.retry_after,
            status.opened_at,
            status.failure_count,
            status.success_count,
            status.failure_rate,
            [(transition.before, transition.after) for transition in status.transitions],
        )


def test_every_store_agrees_with_the_model(make_client):
    run_machine(lambda: BreakerMachine(make_client), examples=80 if make_client is None else 20, steps=40)
