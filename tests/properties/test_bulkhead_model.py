"""The bulkhead against a plain model: who is inside, who waits, who was refused, in what order."""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.errors import BulkheadFullError
from src.resilience.events import Rejected
from tests.support.calls import CANCELLED, OpenCall
from tests.support.listener import RecordingListener
from tests.support.machines import CallsMachine, run_machine

FIRST_GUESS_SECONDS = 1

permits = st.integers(1, 4)
line_lengths = st.sampled_from([3, 0, 1, 10])
longest_waits = st.sampled_from([5, 0.5])
endings = st.sampled_from(["done", ConnectionError("no"), CANCELLED])


class Model:
    """A room with so many places, and a line before its door."""

    def __init__(self, permits, max_waiting, max_wait):
        self.permits, self.max_waiting, self.max_wait = permits, max_waiting, max_wait
        self.inside = {}  # who, and since when
        self.line = {}  # who, and until when
        self.entered = []
        self.refused = []
        self.stays = [FIRST_GUESS_SECONDS]

    def come(self, caller, now):
        if len(self.inside) >= self.permits and len(self.line) >= self.max_waiting:
            self.refused.append((caller, now))
        else:
            self.line[caller] = now + self.max_wait
            self.fill(now)

    def leave(self, callers, now):
        for caller in callers:
            if self.line.pop(caller, None) is None and caller in self.inside:
                self.stays.append(now - self.inside.pop(caller))
        self.fill(now)

    def resize(self, permits, now):
        self.permits = permits
        self.fill(now)

    def give_up(self, now):
        for caller, until in list(self.line.items()):
            if until <= now:
                del self.line[caller]
                self.refused.append((caller, until))

    def fill(self, now):
        while self.line and len(self.inside) < self.permits:
            caller = next(iter(self.line))
            del self.line[caller]
            self.inside[caller] = now
            self.entered.append(caller)


class BulkheadMachine(CallsMachine):
    @initialize(permits=permits, max_waiting=line_lengths, max_wait=longest_waits)
    def set_up(self, permits, max_waiting, max_wait):
        self.listener = RecordingListener()
        self.room = Bulkhead(
            BulkheadOptions(permits, max_waiting, max_wait), self.clock, name="room", listener=self.listener
        )
        self.entered = []
        self.told = []  # what the refused were, once that is found right
        self.model = Model(permits, max_waiting, max_wait)

    @rule()
    def come(self):
        number = len(self.callers)
        self.begin(self.room, lambda: OpenCall(lambda: self.entered.append(number)))
        self.model.come(number, self.now)

    @rule(count=st.integers(2, 4))
    def several_come(self, count):
        for _ in range(count):
            self.come()

    @precondition(lambda self: self.model.inside or self.model.line)
    @rule(
        who=st.dictionaries(st.integers(0, 20), endings, min_size=1, max_size=4), permits=st.none() | permits
    )
    def some_leave_in_one_tick(self, who, permits):
        present = [*self.model.inside, *self.model.line]
        leavers = {present[place % len(present)]: ending for place, ending in who.items()}
        leavers |= dict.fromkeys(leavers.keys() & self.model.line.keys(), CANCELLED)
        permits = permits or self.model.permits
        self.act(lambda: self.leave_while_permits_change(leavers, permits))
        self.model.resize(permits, self.now)
        self.model.leave(leavers, self.now)

    def leave_while_permits_change(self, leavers, permits):
        for count, (number, ending) in enumerate(leavers.items()):
            if ending == CANCELLED:
                self.callers[number].task.cancel()
            else:
                self.callers[number].call.end(ending)
            if count == 0:
                self.room.resize(permits)

    @precondition(lambda self: self.callers)
    @rule(permits=permits)
    def resize(self, permits):
        self.act(lambda: self.room.resize(permits))
        self.model.resize(permits, self.now)

    def hang_up(self, number):
        super().hang_up(number)
        self.model.leave([number], self.now)

    def advance(self, seconds):
        super().advance(seconds)
        self.model.give_up(self.now)

    @invariant()
    def each_is_inside_or_in_line_as_the_model_says(self):
        inside, line = self.model.inside, self.model.line
        # In order, but for those who were let in and gave up in the same tick.
        assert self.entered == [caller for caller in self.model.entered if caller in self.entered]
        assert {n for n, caller in enumerate(self.callers) if caller.call.is_running} == inside.keys()
        assert {n for n, caller in enumerate(self.callers) if caller.outcome is None} == inside.keys() | line
        assert (self.room.in_use, self.room.waiting) == (len(inside), len(line))
        assert self.room.permits == self.model.permits

    @invariant()
    def each_is_refused_as_the_model_says_and_told_a_time_that_calls_took(self):
        refused = {
            (number, caller.outcome[0]): caller.outcome[1].retry_after
            for number, caller in enumerate(self.callers)
            if caller.outcome and isinstance(caller.outcome[1], BulkheadFullError)
        }
        assert refused.keys() == set(self.model.refused)
        told = [refused[refusal] for refusal in self.model.refused]
        assert self.listener.of(Rejected) == [
            Rejected(policy="room", retry_after=seconds) for seconds in told
        ]
        for seconds in told[len(self.told) :]:
            assert min(self.model.stays) <= round(seconds * self.model.permits, 9) <= max(self.model.stays)
        self.told = told


def test_the_bulkhead_keeps_to_the_model():
    run_machine(BulkheadMachine, examples=150)
