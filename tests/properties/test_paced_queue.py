"""Paced queues against plain models: who gets which turn, who starts when, and who does not."""

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
    """The pace as one would explain it: it remembers every turn, and what every worker said last.

    Times are in whole µs.
    """

    def __init__(self, options, clock):
        self.clock = clock
        self.interval, self.max_wait = us(options.interval_seconds), us(options.max_wait_seconds)
        self.grace = min(max(self.interval // 10, 50_000), 1_000_000)
        self.poll = min(max(self.interval // 50, 5_000), 25_000)
        self.capacity = options.capacity
        self.policy = options.policy
        self.given = []  # when, for each turn; None where it was given back
        self.postponed_until = self.now
        # Worker: first by arrival, first by priority, size, when its turn is due, and until when it counts.
        self.said = {}

    @property
    def now(self):
        return us(self.clock.monotonic())

    def due(self):
        used = [at for at in self.given if at is not None]
        after_the_last = [max(used) + self.interval] if used else []
        return max([self.now, self.postponed_until, *after_the_last])

    def lines(self):
        return {worker: line for worker, line in self.said.items() if line[-1] > self.now}

    def size(self):
        return sum(size for _, _, size, _, _ in self.lines().values())

    def ask(self, worker, offer):
        """Return how many are admitted, and whether a turn is given."""
        self.said.pop(worker, None)
        oldest, foremost = self.now - offer.age_us, self.now - offer.lead_us
        column = ["fifo", "priority"].index(self.policy)
        ranking = [(line[column], name) for name, line in self.lines().items() if line[3] <= self.now]
        ranking.append(((oldest, foremost)[column], worker))
        asks_for_one = offer.size + offer.newcomers > 0
        is_next = asks_for_one and self.due() == self.now and min(ranking)[1] == worker

        others, size, admitted, has_turn = self.size(), offer.size, 0, False
        if size and is_next:  # those in line go before the newcomers
            size, has_turn = size - 1, True
        for _ in range(offer.newcomers):
            first_turn_us = max(self.interval if is_next else 0, self.due() - self.now)
            if is_next and not has_turn:
                admitted, has_turn = admitted + 1, True
            elif others + size < self.capacity and self.is_in_time(first_turn_us, others + size):
                admitted, size = admitted + 1, size + 1
        if has_turn:
            self.given.append(self.now)
        if size:
            self.said[worker] = (oldest, foremost, size, self.due(), self.due() + self.grace)
        return admitted, has_turn

    def is_in_time(self, first_turn_us, callers_before):
        return first_turn_us + callers_before * self.interval <= self.max_wait

    def wait(self):
        return self.due() - self.now or self.poll

    def would_be_served(self, after):
        """Whether one who is refused now would have a place and a turn in time if it came so much later."""
        turns = [self.wait() + number * self.interval for number in range(self.size() + 1)]
        still_waiting = sum(turn > after for turn in turns[:-1])
        return still_waiting < self.capacity and turns[-1] <= after + self.max_wait

    def give_back(self, turn):
        if turn.number == len(self.given):
            self.given[-1] = None

    def postpone(self, seconds):
        self.postponed_until = max(self.postponed_until, self.now + us(seconds))

    def status(self):
        oldest = [oldest for oldest, *_ in self.lines().values()]
        age = (self.now - min(oldest)) / 1e6 if oldest else None
        return PaceStatus(self.policy, self.size(), self.capacity, age, (self.due() - self.now) / 1e6)


class PaceStoreMachine(StoreMachine):
    """Says the same to a store and to the model, and compares every figure of what they answer."""

    turns = Bundle("turns")

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

    @rule(target=turns, worker=workers, size=counts, newcomers=counts, age=quarters, lead=quarters)
    def ask(self, worker, size, newcomers, age, lead):
        offer = Offer(size, newcomers, us(age), us(lead - 2))
        verdict = self.do(self.stores[worker].ask(worker, offer))
        admitted, has_turn = self.model.ask(worker, offer)
        assert (verdict.admitted, verdict.slot is not None) == (admitted, has_turn)
        assert (verdict.policy, verdict.wait_us) == (self.model.policy, self.model.wait())
        if admitted < newcomers:
            is_full = self.model.size() >= self.model.capacity
            assert verdict.late_after in (
                (None, self.options.max_wait_seconds) if is_full else (self.options.max_wait_seconds,)
            )
            assert self.model.would_be_served(us(verdict.retry_after))
            assert not self.model.would_be_served(us(verdict.retry_after) - 1)
        if not has_turn:
            return multiple()
        assert verdict.slot.number == len(self.model.given)
        return verdict.slot

    @rule(worker=workers, age=quarters)
    def wait_and_ask_as_told(self, worker, age):
        self.pass_time(self.model.wait() / 1e6)
        self.ask(worker, 1, 0, age, age)

    @rule(worker=workers, turn=turns)
    def give_back(self, worker, turn):
        self.do(self.stores[worker].give_back(turn))
        self.model.give_back(turn)

    @precondition(lambda self: self.model.due() == self.model.now)  # seldom, or nobody would have a turn
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
    def no_two_turns_come_too_close(self):
        if self.model is not None:
            used = [at for at in self.model.given if at is not None]
            gaps = [later - earlier for earlier, later in pairwise(used)]
            assert all(gap >= self.model.interval for gap in gaps)

    @invariant()
    def both_show_the_same(self):
        if self.model is not None:
            assert self.do(self.stores["a"].status()) == self.model.status()


def test_every_store_keeps_to_the_model(make_client):
    run_machine(lambda: PaceStoreMachine(make_client), examples=200 if make_client is None else 40, steps=40)


# ---------------------------------------------------------------- the queue


class QueueModel:
    """One line for all workers, looked through whenever something happens."""

    def __init__(self, options):
        self.options = options
        self.policy = options.policy
        self.now = 0.0
        self.free_at = self.postponed_until = 0.0
        self.arrived = {}
        self.line = {}  # who: when it came, its rank by priority, and whether its call is rejected
        self.outcomes = {}

    def rank(self, name):
        worker, number = name
        arrived, rank, _ = self.line[name]
        return (arrived if self.policy == "fifo" else rank), worker, number

    def arrive(self, name, priority, *, rejected):
        options, wait = self.options, max(0, self.due() - self.now)
        callers_before = len(self.line)
        self.arrived[name] = self.now
        in_time = [
            n
            for n in range(options.capacity)
            if wait + n * options.interval_seconds <= options.max_wait_seconds
        ]
        self.line[name] = self.now, self.now + priority * options.aging_seconds, rejected
        self.give_turns()
        if name in self.line and callers_before >= len(in_time):
            self.end(name, QueueFullError if len(in_time) == options.capacity else QueueTimeoutError)

    def end(self, name, outcome):
        del self.line[name]
        self.outcomes[name] = self.now, outcome

    def learn(self, name, when):
        """Record that this caller was rejected at `when`: no turn came in time after that."""
        ends = self.arrived[name] + self.options.max_wait_seconds
        started = {"started", CircuitOpenError}
        turns = [at for at, outcome in self.outcomes.values() if outcome in started]
        assert not [at for at in turns if when < at <= ends]
        assert self.now >= ends or self.due() > ends
        self.line.pop(name, None)
        self.outcomes[name] = when, QueueTimeoutError

    def due(self):
        return max(self.free_at, self.postponed_until)

    def give_turn(self):
        if self.line and self.due() <= self.now:
            first = min(self.line, key=self.rank)
            if self.line[first][2]:
                self.end(first, CircuitOpenError)
            else:
                self.end(first, "started")
                self.free_at = self.now + self.options.interval_seconds

    def give_turns(self):
        while self.line and self.due() <= self.now:
            self.give_turn()

    def pass_time(self, seconds):
        end = self.now + seconds
        while self.line:
            ends = {
                name: arrived + self.options.max_wait_seconds for name, (arrived, *_) in self.line.items()
            }
            upcoming = min(max(self.due(), self.now), *ends.values())
            if upcoming > end:
                break
            self.now = upcoming
            self.give_turn()  # of those whose time is over in this instant, one is still in time
            for name in [name for name in self.line if ends[name] <= self.now]:
                self.end(name, QueueTimeoutError)
            self.give_turns()
        self.now = end


class PacedQueueMachine(AsyncMachine):
    """Callers of one or two workers come, leave and wait; the model says what becomes of each, and when.

    Calls are rejected only where there is one worker: of a turn given back, another hears when it asks next.
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

        class Prioritised:
            run = staticmethod(lambda call: queue.run(call, priority=priority))

        name = worker, len(self.callers)
        self.callers[name] = self.act(lambda: Caller(Prioritised(), call, self.clock))
        self.model.arrive(name, priority, rejected=rejected)

    @rule(count=st.integers(2, 7), priority=st.integers(-3, 3))
    def burst(self, count, priority):
        for number in range(count):
            self.arrive("ab"[number % 2], priority, rejected=number == 3)

    @precondition(lambda self: self.model.line)
    @rule(which=st.integers(0, 20))
    def leave(self, which):
        name = list(self.model.line)[which % len(self.model.line)]
        self.act(self.callers[name].task.cancel)
        self.model.end(name, CANCELLED)

    @rule(policy=policies)
    def set_policy(self, policy):
        self.do(self.queues["a"].set_policy(policy))
        self.model.policy = policy

    @precondition(lambda self: len(self.callers) % 4 == 3)  # seldom, or nobody would start
    @rule(seconds=quarters)
    def postpone(self, seconds):
        self.do(self.queues["a"].postpone(seconds))
        self.do(settle())  # those who learn that they wait in vain
        self.model.postponed_until = max(self.model.postponed_until, self.model.now + seconds)

    @rule(seconds=quarters)
    def pass_time(self, seconds):
        self.do(self.clock.advance(seconds))
        self.model.pass_time(seconds)

    @rule()
    def wait_for_the_next_turn(self):
        self.pass_time(max(0, self.model.due() - self.model.now))

    @invariant()
    def both_tell_the_same_of_everybody(self):
        if self.model is not None:
            told = {
                name: (caller.outcome[0], kind(caller.outcome[1]))
                for name, caller in self.callers.items()
                if caller.outcome
            }
            for name, (when, outcome) in told.items():
                if outcome is QueueTimeoutError and self.model.outcomes.get(name) != (when, outcome):
                    self.model.learn(name, when)
            assert told == self.model.outcomes
            assert self.do(self.queues["a"].status()).size == len(self.model.line)

    @invariant()
    def nobody_works_for_an_empty_line(self):
        if self.model is not None and not self.model.line:
            tasks = [queue._worker for queue in self.queues.values()]
            assert all(tender is None or tender.done() for tender in tasks)


def kind(outcome):
    return type(outcome) if isinstance(outcome, Exception) else outcome


def test_the_queue_keeps_to_the_model():
    run_machine(PacedQueueMachine, examples=150, steps=40)
