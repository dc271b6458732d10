"""Paced queues against simple models: the assigned slots, and the outcome of each caller."""

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, multiple, precondition, rule

from src.resilience.errors import CircuitOpenError, QueueFullError, QueueTimeoutError
from src.resilience.paced_queue.memory import MemoryPaceStore
from src.resilience.paced_queue.options import PacedQueueOptions
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.paced_queue.redis import RedisPaceStore
from src.resilience.paced_queue.store import Offer, PaceStatus
from tests.contract.conftest import TEST_TIME
from tests.support.calls import CANCELLED, Caller
from tests.support.clock import settle
from tests.support.machines import AsyncMachine, StoreMachine, run_machine


def us(seconds):
    return round(seconds * 1e6)


policies = st.sampled_from(["fifo", "priority"])
workers = st.sampled_from("abc")
quarters = st.integers(0, 16).map(lambda n: n / 4)  # exact in binary, and in µs
counts = st.integers(0, 3)


@st.composite
def queue_options(draw):
    return PacedQueueOptions(
        interval_seconds=draw(st.sampled_from([0.25, 1, 2.5])),
        capacity=draw(st.integers(1, 5)),
        max_wait_seconds=draw(st.sampled_from([1, 3.25, 60])),
        aging_seconds=draw(st.sampled_from([0.5, 2])),
        policy=draw(policies),
    )


# ---------------------------------------------------------------- the store


class StoreModel:
    """The simplest store: it keeps every slot, and the last offer of every worker.

    Times are in whole µs.
    """

    def __init__(self, options, clock):
        self.clock = clock
        self.interval, self.max_wait = us(options.interval_seconds), us(options.max_wait_seconds)
        self.grace = min(max(self.interval // 10, 50_000), 1_000_000)
        self.poll = min(max(self.interval // 50, 5_000), 25_000)
        self.capacity = options.capacity
        self.policy = options.policy
        self.assigned_at = []  # the time of each slot; None if the slot was given back
        self.postponed_until = self.now
        # By worker: its first arrival, first rank by priority, size, slot's due time, and end of the offer.
        self.offers = {}

    @property
    def now(self):
        return us(self.clock.monotonic())

    def due(self):
        used = [at for at in self.assigned_at if at is not None]
        after_the_last_slot = [max(used) + self.interval] if used else []
        return max([self.now, self.postponed_until, *after_the_last_slot])

    def valid_offers(self):
        return {worker: waiting for worker, waiting in self.offers.items() if waiting[-1] > self.now}

    def size(self):
        return sum(size for _, _, size, _, _ in self.valid_offers().values())

    def ask(self, worker, offer):
        """Return the number of admitted callers, and whether a slot is assigned."""
        self.offers.pop(worker, None)
        oldest, first_by_priority = self.now - offer.age_us, self.now - offer.lead_us
        column = ["fifo", "priority"].index(self.policy)
        ranking = [
            (waiting[column], name) for name, waiting in self.valid_offers().items() if waiting[3] <= self.now
        ]
        ranking.append(((oldest, first_by_priority)[column], worker))
        needs_slot = offer.size + offer.newcomers > 0
        is_next = needs_slot and self.due() == self.now and min(ranking)[1] == worker

        others, size, admitted, has_slot = self.size(), offer.size, 0, False
        if size and is_next:  # waiting callers come before newcomers
            size, has_slot = size - 1, True
        for _ in range(offer.newcomers):
            first_slot_us = max(self.interval if is_next else 0, self.due() - self.now)
            if is_next and not has_slot:
                admitted, has_slot = admitted + 1, True
            elif others + size < self.capacity and self.is_in_time(first_slot_us, others + size):
                admitted, size = admitted + 1, size + 1
        if has_slot:
            self.assigned_at.append(self.now)
        if size:
            self.offers[worker] = (oldest, first_by_priority, size, self.due(), self.due() + self.grace)
        return admitted, has_slot

    def is_in_time(self, first_slot_us, callers_before):
        return first_slot_us + callers_before * self.interval <= self.max_wait

    def wait(self):
        return self.due() - self.now or self.poll

    def would_be_served(self, after):
        """Return whether a caller that comes `after` µs later has a place, with a slot in time."""
        slots = [self.wait() + number * self.interval for number in range(self.size() + 1)]
        still_waiting = sum(slot > after for slot in slots[:-1])
        return still_waiting < self.capacity and slots[-1] <= after + self.max_wait

    def give_back(self, slot):
        if slot.number == len(self.assigned_at):
            self.assigned_at[-1] = None

    def postpone(self, seconds):
        self.postponed_until = max(self.postponed_until, self.now + us(seconds))

    def status(self):
        oldest = [oldest for oldest, *_ in self.valid_offers().values()]
        age = (self.now - min(oldest)) / 1e6 if oldest else None
        return PaceStatus(self.policy, self.size(), self.capacity, age, (self.due() - self.now) / 1e6)


class PaceStoreMachine(StoreMachine):
    """Makes the same offers to a store and to the model, and compares their decisions."""

    slots = Bundle("turns")

    model = None

    @initialize(options=queue_options())
    def set_up(self, options):
        self.options = options
        self.model = StoreModel(options, self.clock)
        self.do(self.time.publish())
        if self.link is None:
            self.stores = dict.fromkeys("abc", MemoryPaceStore(options, self.clock))
        else:
            self.stores = {worker: self.redis_store() for worker in "abc"}

    def redis_store(self):
        return RedisPaceStore("upstream", self.options, self.link, time_source=TEST_TIME)

    @rule(target=slots, worker=workers, size=counts, newcomers=counts, age=quarters, lead=quarters)
    def ask(self, worker, size, newcomers, age, lead):
        offer = Offer(size, newcomers, us(age), us(lead - 2))
        decision = self.do(self.stores[worker].ask(worker, offer))
        admitted, has_slot = self.model.ask(worker, offer)
        assert (decision.admitted, decision.slot is not None) == (admitted, has_slot)
        assert (decision.policy, decision.wait_us) == (self.model.policy, self.model.wait())
        if admitted < newcomers:
            is_full = self.model.size() >= self.model.capacity
            assert decision.late_after in (
                (None, self.options.max_wait_seconds) if is_full else (self.options.max_wait_seconds,)
            )
            assert self.model.would_be_served(us(decision.retry_after))
            assert not self.model.would_be_served(us(decision.retry_after) - 1)
        if not has_slot:
            return multiple()
        assert decision.slot.number == len(self.model.assigned_at)
        return decision.slot

    @rule(worker=workers, age=quarters)
    def wait_and_ask_as_decided(self, worker, age):
        self.pass_time(self.model.wait() / 1e6)
        self.ask(worker, 1, 0, age, age)

    @rule(worker=workers, slot=slots)
    def give_back(self, worker, slot):
        self.do(self.stores[worker].give_back(slot))
        self.model.give_back(slot)

    @precondition(lambda self: self.model.due() == self.model.now)  # rarely, so that slots are assigned
    @rule(worker=workers, seconds=quarters)
    def postpone(self, worker, seconds):
        self.do(self.stores[worker].postpone(seconds))
        self.model.postpone(seconds)

    @rule(worker=workers, policy=policies)
    def set_policy(self, worker, policy):
        self.do(self.stores[worker].set_policy(policy))
        self.model.policy = policy

    @rule(seconds=quarters | st.sampled_from([0.005, 0.02, 0.05, 0.1]))
    def pass_time(self, seconds):
        self.do(self.time.advance(seconds))

    @invariant()
    def slots_keep_the_interval(self):
        if self.model is not None:
            used = [at for at in self.model.assigned_at if at is not None]
            gaps = [later - earlier for earlier, later in pairwise(used)]
            assert all(gap >= self.model.interval for gap in gaps)

    @invariant()
    def status_agrees_with_the_model(self):
        if self.model is not None:
            assert self.do(self.stores["a"].status()) == self.model.status()


def test_every_store_agrees_with_the_model(make_client):
    run_machine(lambda: PaceStoreMachine(make_client), examples=200 if make_client is None else 40, steps=40)


# ---------------------------------------------------------------- the queue


class QueueModel:
    """One queue for all workers, which is searched completely at each change."""

    def __init__(self, options):
        self.options = options
        self.policy = options.policy
        self.now = 0.0
        self.free_at = self.postponed_until = 0.0
        self.arrived = {}
        self.waiting = {}  # by caller: its arrival, its rank by priority, and whether its call is rejected
        self.outcomes = {}

    def rank(self, name):
        worker, number = name
        arrived, rank, _ = self.waiting[name]
        return (arrived if self.policy == "fifo" else rank), worker, number

    def arrive(self, name, priority, *, rejected):
        options, wait = self.options, max(0, self.due() - self.now)
        callers_before = len(self.waiting)
        self.arrived[name] = self.now
        in_time = [
            n
            for n in range(options.capacity)
            if wait + n * options.interval_seconds <= options.max_wait_seconds
        ]
        self.waiting[name] = self.now, self.now + priority * options.aging_seconds, rejected
        self.assign_slots()
        if name in self.waiting and callers_before >= len(in_time):
            self.end(name, QueueFullError if len(in_time) == options.capacity else QueueTimeoutError)

    def end(self, name, outcome):
        del self.waiting[name]
        self.outcomes[name] = self.now, outcome

    def record_rejection(self, name, when):
        """Record that a caller was rejected at `when`, and check that no slot came in time after that."""
        ends = self.arrived[name] + self.options.max_wait_seconds
        started = {"started", CircuitOpenError}
        slots = [at for at, outcome in self.outcomes.values() if outcome in started]
        assert not [at for at in slots if when < at <= ends]
        assert self.now >= ends or self.due() > ends
        self.waiting.pop(name, None)
        self.outcomes[name] = when, QueueTimeoutError

    def due(self):
        return max(self.free_at, self.postponed_until)

    def assign_slot(self):
        if self.waiting and self.due() <= self.now:
            first = min(self.waiting, key=self.rank)
            if self.waiting[first][2]:
                self.end(first, CircuitOpenError)
            else:
                self.end(first, "started")
                self.free_at = self.now + self.options.interval_seconds

    def assign_slots(self):
        while self.waiting and self.due() <= self.now:
            self.assign_slot()

    def pass_time(self, seconds):
        end = self.now + seconds
        while self.waiting:
            ends = {
                name: arrived + self.options.max_wait_seconds for name, (arrived, *_) in self.waiting.items()
            }
            upcoming = min(max(self.due(), self.now), *ends.values())
            if upcoming > end:
                break
            self.now = upcoming
            self.assign_slot()  # of the callers whose time ends now, one still gets a slot
            for name in [name for name in self.waiting if ends[name] <= self.now]:
                self.end(name, QueueTimeoutError)
            self.assign_slots()
        self.now = end


class PacedQueueMachine(AsyncMachine):
    """Callers of one or two workers arrive, wait and are cancelled. The model predicts each outcome.

    Calls are rejected only with one worker, since another worker uses a returned slot at its next offer.
    """

    model = None

    @initialize(options=queue_options(), fleet=st.sampled_from(["a", "ab"]))
    def set_up(self, options, fleet):
        self.model = QueueModel(options)
        store = MemoryPaceStore(options, self.clock)
        self.queues = {}
        for worker in fleet:
            self.queues[worker] = PacedQueue(options, store, self.clock)
            self.queues[worker]._worker_name = worker
        self.callers = {}

    @rule(worker=st.sampled_from("ab"), priority=st.integers(-3, 3), rejected=st.booleans())
    def arrive(self, worker, priority, rejected):
        worker = worker if worker in self.queues else "a"
        rejected = rejected and len(self.queues) == 1
        queue = self.queues[worker]

        async def call():
            if rejected:
                raise CircuitOpenError("breaker", "the circuit is open", 30)
            return "started"

        class PolicyWithPriority:
            run = staticmethod(lambda call: queue.run(call, priority=priority))

        name = worker, len(self.callers)
        self.callers[name] = self.act(lambda: Caller(PolicyWithPriority(), call, self.clock))
        self.model.arrive(name, priority, rejected=rejected)

    @rule(count=st.integers(2, 7), priority=st.integers(-3, 3))
    def burst(self, count, priority):
        for number in range(count):
            self.arrive("ab"[number % 2], priority, rejected=number == 3)

    @precondition(lambda self: self.model.waiting)
    @rule(which=st.integers(0, 20))
    def leave(self, which):
        name = list(self.model.waiting)[which % len(self.model.waiting)]
        self.act(self.callers[name].task.cancel)
        self.model.end(name, CANCELLED)

    @rule(policy=policies)
    def set_policy(self, policy):
        self.do(self.queues["a"].set_policy(policy))
        self.model.policy = policy

    @precondition(lambda self: len(self.callers) % 4 == 3)  # rarely, so that calls start
    @rule(seconds=quarters)
    def postpone(self, seconds):
        self.do(self.queues["a"].postpone(seconds))
        self.do(settle())  # callers whose slot would come too late are rejected
        self.model.postponed_until = max(self.model.postponed_until, self.model.now + seconds)

    @rule(seconds=quarters)
    def pass_time(self, seconds):
        self.do(self.clock.advance(seconds))
        self.model.pass_time(seconds)

    @rule()
    def wait_for_the_next_slot(self):
        self.pass_time(max(0, self.model.due() - self.model.now))

    @invariant()
    def outcomes_agree_with_the_model(self):
        if self.model is not None:
            outcomes = {
                name: (caller.outcome[0], kind(caller.outcome[1]))
                for name, caller in self.callers.items()
                if caller.outcome
            }
            for name, (when, outcome) in outcomes.items():
                if outcome is QueueTimeoutError and self.model.outcomes.get(name) != (when, outcome):
                    self.model.record_rejection(name, when)
            assert outcomes == self.model.outcomes
            assert self.do(self.queues["a"].status()).size == len(self.model.waiting)

    @invariant()
    def no_worker_runs_for_an_empty_queue(self):
        if self.model is not None and not self.model.waiting:
            tasks = [queue._worker for queue in self.queues.values()]
            assert all(task is None or task.done() for task in tasks)


def kind(outcome):
    return type(outcome) if isinstance(outcome, Exception) else outcome


def test_the_queue_agrees_with_the_model():
    run_machine(PacedQueueMachine, examples=150, steps=40)
