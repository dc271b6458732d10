"""The bulkhead against a simple model: the running, waiting and rejected calls, and their order."""

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
queue_lengths = st.sampled_from([3, 0, 1, 10])
longest_waits = st.sampled_from([5, 0.5])
endings = st.sampled_from(["done", ConnectionError("no"), CANCELLED])


class BulkheadModel:
    """The simplest bulkhead: a number of permits and a queue."""

    def __init__(self, permits, max_waiting, max_wait):
        self.permits, self.max_waiting, self.max_wait = permits, max_waiting, max_wait
        self.running = {}  # by caller: its start
        self.queue = {}  # the latest end of the wait of each caller
        self.started = []
        self.rejected = []
        self.durations = [FIRST_GUESS_SECONDS]

    def add_caller(self, caller, now):
        if len(self.running) >= self.permits and len(self.queue) >= self.max_waiting:
            self.rejected.append((caller, now))
        else:
            self.queue[caller] = now + self.max_wait
            self.fill(now)

    def leave(self, callers, now):
        for caller in callers:
            if self.queue.pop(caller, None) is None and caller in self.running:
                self.durations.append(now - self.running.pop(caller))
        self.fill(now)

    def resize(self, permits, now):
        self.permits = permits
        self.fill(now)

    def time_out(self, now):
        for caller, until in list(self.queue.items()):
            if until <= now:
                del self.queue[caller]
                self.rejected.append((caller, until))

    def fill(self, now):
        while self.queue and len(self.running) < self.permits:
            caller = next(iter(self.queue))
            del self.queue[caller]
            self.running[caller] = now
            self.started.append(caller)


class BulkheadMachine(CallsMachine):
    @initialize(permits=permits, max_waiting=queue_lengths, max_wait=longest_waits)
    def set_up(self, permits, max_waiting, max_wait):
        self.listener = RecordingListener()
        self.bulkhead = Bulkhead(
            BulkheadOptions(permits, max_waiting, max_wait), self.clock, name="room", listener=self.listener
        )
        self.started = []
        self.retry_afters = []  # the checked values of all rejections so far
        self.model = BulkheadModel(permits, max_waiting, max_wait)

    @rule()
    def add_caller(self):
        number = len(self.callers)
        self.begin(self.bulkhead, lambda: OpenCall(lambda: self.started.append(number)))
        self.model.add_caller(number, self.now)

    @rule(count=st.integers(2, 4))
    def add_callers(self, count):
        for _ in range(count):
            self.add_caller()

    @precondition(lambda self: self.model.running or self.model.queue)
    @rule(
        who=st.dictionaries(st.integers(0, 20), endings, min_size=1, max_size=4), permits=st.none() | permits
    )
    def end_several_in_one_tick(self, who, permits):
        present = [*self.model.running, *self.model.queue]
        ended = {present[place % len(present)]: ending for place, ending in who.items()}
        ended |= dict.fromkeys(ended.keys() & self.model.queue.keys(), CANCELLED)
        permits = permits or self.model.permits
        self.act(lambda: self.end_while_permits_change(ended, permits))
        self.model.resize(permits, self.now)
        self.model.leave(ended, self.now)

    def end_while_permits_change(self, ended, permits):
        for count, (number, ending) in enumerate(ended.items()):
            if ending == CANCELLED:
                self.callers[number].task.cancel()
            else:
                self.callers[number].call.end(ending)
            if count == 0:
                self.bulkhead.resize(permits)

    @precondition(lambda self: self.callers)
    @rule(permits=permits)
    def resize(self, permits):
        self.act(lambda: self.bulkhead.resize(permits))
        self.model.resize(permits, self.now)

    def cancel_call(self, number):
        super().cancel_call(number)
        self.model.leave([number], self.now)

    def advance(self, seconds):
        super().advance(seconds)
        self.model.time_out(self.now)

    @invariant()
    def running_and_waiting_calls_agree_with_the_model(self):
        running, queue = self.model.running, self.model.queue
        # A caller that got its permit and was cancelled in the same tick is not in the first list.
        assert self.started == [caller for caller in self.model.started if caller in self.started]
        assert {n for n, caller in enumerate(self.callers) if caller.call.is_running} == running.keys()
        assert {
            n for n, caller in enumerate(self.callers) if caller.outcome is None
        } == running.keys() | queue
        assert (self.bulkhead.in_use, self.bulkhead.waiting) == (len(running), len(queue))
        assert self.bulkhead.permits == self.model.permits

    @invariant()
    def rejections_agree_with_the_model(self):
        rejected = {
            (number, caller.outcome[0]): caller.outcome[1].retry_after
            for number, caller in enumerate(self.callers)
            if caller.outcome and isinstance(caller.outcome[1], BulkheadFullError)
        }
        assert rejected.keys() == set(self.model.rejected)
        retry_afters = [rejected[refusal] for refusal in self.model.rejected]
        assert self.listener.of(Rejected) == [
            Rejected(policy="room", retry_after=seconds) for seconds in retry_afters
        ]
        for seconds in retry_afters[len(self.retry_afters) :]:
            assert (
                min(self.model.durations)
                <= round(seconds * self.model.permits, 9)
                <= max(self.model.durations)
            )
        self.retry_afters = retry_afters


def test_the_bulkhead_agrees_with_the_model():
    run_machine(BulkheadMachine, examples=150)
