"""The paced queue: the starts of calls, and the ends of rejected and cancelled callers."""

import asyncio
import contextvars
import tracemalloc
from dataclasses import replace

import pytest

from src.resilience.errors import (
    CircuitOpenError,
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
    RejectedError,
)
from src.resilience.events import Rejected, SlotTaken, TimedOut
from src.resilience.paced_queue.memory import MemoryPaceStore
from src.resilience.paced_queue.options import PacedQueueOptions
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.pipeline import Pipeline
from tests.support.calls import CANCELLED, Caller, OpenCall
from tests.support.clock import settle


class Bank:
    """Where the calls go: it notes who called when."""

    def __init__(self, clock):
        self._clock = clock
        self.starts = {}

    def call(self, name):
        async def call():
            self.starts[name] = self._clock.monotonic()
            return name

        return call


@pytest.fixture
def bank(clock):
    return Bank(clock)


@pytest.fixture
def queue_of(clock, listener):
    def queue_of(*, store=None, **options):
        options = PacedQueueOptions(**options)
        store = store or MemoryPaceStore(options, clock)
        return PacedQueue(options, store, clock, name="bank", listener=listener)

    return queue_of


async def line_up(queue, bank, clock, *names, priority=0):
    """Have callers arrive, one after the other."""
    callers = []
    for name in names:
        callers.append(Standing(queue, bank.call(name), clock, priority))
        await settle()
    return callers


class Standing(Caller):
    """A caller with a priority."""

    def __init__(self, queue, call, clock, priority=0):
        class WithPriority:
            async def run(self, call):
                return await queue.run(call, priority=priority)

        super().__init__(WithPriority(), call, clock)


async def size_of(queue):
    return (await queue.status()).size


# ---------------------------------------------------------------- the pace


@pytest.mark.parametrize("interval", [0.001, 0.1, 1 / 3, 1.0, 7.5])
@pytest.mark.parametrize(
    "gaps", [[0] * 10, [0, 0, 0.5, 0.5, 0.5, 3, 0, 0, 1, 0.999999], [1] * 6, [0.7] * 9, [1.000001, 5, 0, 0]]
)
async def test_each_call_starts_when_it_came_or_an_interval_after_the_one_before(
    queue_of, bank, clock, interval, gaps
):
    queue = queue_of(interval_seconds=interval, max_wait_seconds=1000)
    interval_us, expected_us = round(interval * 1e6), []
    for number, gap in enumerate(gaps):
        await clock.advance(gap * interval)
        arrived_us = round(clock.monotonic() * 1e6)
        earliest_us = expected_us[-1] + interval_us if expected_us else 0
        expected_us.append(max(arrived_us, earliest_us))
        await line_up(queue, bank, clock, number)
    await clock.advance(interval * len(gaps))

    assert list(bank.starts) == list(range(len(gaps)))
    assert [round(start * 1e6) for start in bank.starts.values()] == expected_us


async def test_a_slow_call_slows_no_other(queue_of, clock):
    queue = queue_of()
    calls = [OpenCall() for _ in range(3)]
    for call in calls:
        Caller(queue, call, clock)

    await clock.advance(2)

    assert all(call.is_under_way for call in calls)
    for call in calls:
        call.end()
    await settle()


async def test_the_answer_and_the_error_of_the_call_come_through(queue_of, clock):
    queue = queue_of()

    async def fail():
        raise ConnectionError("no")

    assert await clock.drive(queue.run(lambda: asyncio.sleep(0, "answer"))) == "answer"
    with pytest.raises(ConnectionError, match="no"):
        await clock.drive(queue.run(fail))


async def test_a_failed_call_uses_its_slot(queue_of, bank, clock):
    queue = queue_of()

    async def fail():
        raise ConnectionError

    failed = Caller(queue, fail, clock)
    await line_up(queue, bank, clock, "next")
    assert isinstance(failed.outcome[1], ConnectionError)
    assert not bank.starts

    await clock.advance(1)

    assert bank.starts == {"next": 1}


async def test_it_is_a_policy_among_others(queue_of, bank, clock):
    pipeline = Pipeline(queue_of())
    assert await clock.drive(pipeline.run(bank.call("only"))) == "only"


async def test_no_task_runs_when_no_caller_waits(queue_of, bank, clock):
    queue = queue_of()
    await line_up(queue, bank, clock, *"abc")
    await clock.advance(3)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await size_of(queue) == 0


async def test_every_start_sends_an_event_with_its_wait(queue_of, bank, clock, listener):
    queue = queue_of()
    await line_up(queue, bank, clock, *"abc")
    await clock.advance(2)
    assert listener.events == [SlotTaken(policy="bank", seconds=seconds) for seconds in (0, 1, 2)]


async def test_a_call_runs_in_its_callers_context_and_the_worker_in_an_empty_one(queue_of, clock):
    request = contextvars.ContextVar("request", default=None)
    asked_by, answers = set(), []

    class Store(MemoryPaceStore):
        async def ask(self, worker, offer):
            asked_by.add(request.get())
            return await super().ask(worker, offer)

    queue = queue_of(store=Store(PacedQueueOptions(), clock))

    async def answer():
        answers.append(request.get())

    for name in "ab":
        request.set(name)
        Caller(queue, answer, clock)
    await clock.advance(1)

    assert answers == ["a", "b"]
    assert asked_by == {None}


# ---------------------------------------------------------------- leaving


async def test_a_caller_that_leaves_the_queue_uses_no_slot(queue_of, bank, clock):
    queue = queue_of()
    _, b, c, _ = await line_up(queue, bank, clock, *"abcd")
    assert await size_of(queue) == 3

    b.task.cancel()
    c.task.cancel()
    await settle()

    assert await size_of(queue) == 1
    await clock.advance(1)
    assert bank.starts == {"a": 0, "d": 1}


@pytest.mark.parametrize("ticks", range(8))
async def test_a_slot_and_a_cancellation_in_the_same_tick_lose_no_slot(queue_of, bank, clock, ticks):
    queue = queue_of()
    _, unlucky, after = await line_up(queue, bank, clock, *"abc")
    clock.jump(1)
    clock._fire_next()
    for _ in range(ticks):
        await asyncio.sleep(0)

    unlucky.task.cancel()
    await settle()

    has_begun = "b" in bank.starts
    assert unlucky.outcome == (1, "b" if has_begun else CANCELLED)
    await clock.advance(1)
    assert bank.starts["c"] == (2 if has_begun else 1)
    assert after.outcome[1] == "c"


@pytest.mark.parametrize("ticks", range(6))
async def test_a_caller_that_leaves_as_it_comes_leaves_nothing_behind(queue_of, bank, clock, ticks):
    queue = queue_of()
    await line_up(queue, bank, clock, "a")
    leaving = Standing(queue, bank.call("b"), clock)
    for _ in range(ticks):
        await asyncio.sleep(0)

    leaving.task.cancel()
    await settle()

    assert leaving.outcome[1] == CANCELLED
    assert await size_of(queue) == 0
    await line_up(queue, bank, clock, "c")
    await clock.advance(1)
    assert bank.starts == {"a": 0, "c": 1}


class ImpatientStore(MemoryPaceStore):
    """Fails after many questions, which would otherwise be asked without an end."""

    questions = 0

    async def ask(self, worker, offer):
        self.questions += 1
        if self.questions > 50:
            raise AssertionError("the worker asks again and again, and no other task runs")
        return await super().ask(worker, offer)


@pytest.mark.parametrize("callers", ["b", "bc"])
async def test_a_cancellation_that_the_callers_task_does_not_know_yet_leaves_no_place(
    queue_of, bank, clock, callers
):
    store = ImpatientStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store)
    _, *leaving = await line_up(queue, bank, clock, "a", *callers)
    clock.jump(1)  # the slot is due

    await queue.postpone(0)  # wakes the worker, which runs before the tasks that are cancelled here
    for caller in leaving:
        caller.task.cancel()
    await settle()

    assert store.questions < 10
    assert await size_of(queue) == 0
    await line_up(queue, bank, clock, "z")
    assert bank.starts == {"a": 0, "z": 1}


class SlowStore(MemoryPaceStore):
    """Answers a question when told to."""

    def __init__(self, options, clock):
        super().__init__(options, clock)
        self.questions = 0
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    def hold(self):
        self._may_answer.clear()

    def let_go(self):
        self._may_answer.set()

    async def ask(self, worker, offer):
        self.questions += 1
        verdict = await super().ask(worker, offer)
        await self._may_answer.wait()
        return verdict


@pytest.fixture
def slow_store(clock):
    return SlowStore(PacedQueueOptions(capacity=3), clock)


async def test_a_slot_for_an_empty_queue_goes_to_the_next_caller(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    slow_store.hold()
    (gone,) = await line_up(queue, bank, clock, "gone")
    gone.task.cancel()
    await settle()
    slow_store.let_go()
    await settle()

    await line_up(queue, bank, clock, "next")

    assert bank.starts == {"next": 0}


async def test_a_newcomer_that_leaves_while_the_store_is_asked_takes_no_place(
    queue_of, bank, clock, slow_store
):
    queue = queue_of(store=slow_store)
    await line_up(queue, bank, clock, "a")
    slow_store.hold()
    (gone,) = await line_up(queue, bank, clock, "gone")
    gone.task.cancel()
    await settle()
    slow_store.let_go()
    await settle()

    assert await size_of(queue) == 0
    await line_up(queue, bank, clock, *"bcd")
    assert await size_of(queue) == 3


async def test_callers_that_arrive_during_an_offer_are_in_the_next_offer(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    slow_store.hold()
    await line_up(queue, bank, clock, *"abc")
    assert slow_store.questions == 1
    slow_store.let_go()
    await clock.advance(2)
    assert bank.starts == {"a": 0, "b": 1, "c": 2}


# ---------------------------------------------------------------- waiting too long


async def test_a_caller_that_is_overtaken_for_too_long_times_out_and_uses_no_slot(
    queue_of, bank, clock, listener
):
    queue = queue_of(policy="priority", max_wait_seconds=2.5, aging_seconds=100)
    *_, late = await line_up(queue, bank, clock, *"abc", priority=1)
    await clock.advance(1)
    await line_up(queue, bank, clock, "urgent")
    await clock.advance(1.25)
    await line_up(queue, bank, clock, "e", priority=1)

    await clock.advance(5)

    assert late.outcome[0] == 2.5
    assert isinstance(late.outcome[1], QueueTimeoutError)
    assert bank.starts == {"a": 0, "b": 1, "urgent": 2, "e": 3}
    assert listener.of(TimedOut) == [TimedOut(policy="bank", seconds=2.5)]


async def test_the_wait_ends_to_the_microsecond(queue_of, bank, clock):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store, max_wait_seconds=2.5)
    _, late = await line_up(queue, bank, clock, *"ab")
    store.is_failing = True  # so that nobody can tell when the next turn comes
    await clock.advance(2.499999)
    assert late.outcome is None

    await clock.advance(0.000001)

    when, error = late.outcome
    assert (when, type(error), error.seconds, error.retry_after) == (2.5, QueueTimeoutError, 2.5, None)
    assert queue._worker.done()


# ---------------------------------------------------------------- too late from the start


async def test_of_a_hundred_and_ten_callers_each_is_served_or_rejected_at_once(
    queue_of, bank, clock, listener
):
    queue = queue_of()  # as it comes: one call a second, 100 in line, for 60 s at most
    callers = [Standing(queue, bank.call(number), clock) for number in range(110)]
    await settle()

    refused = [caller for caller in callers if caller.outcome and caller.outcome[1] != 0]
    assert refused == callers[61:], "one runs, and 60 have their turns within 60 s"
    for _, error in (caller.outcome for caller in refused):
        assert (type(error), error.seconds, error.retry_after) == (QueueTimeoutError, 60, 1)
    assert len(listener.of(Rejected)) == 49

    await clock.advance(60)
    assert list(bank.starts) == list(range(61))
    assert listener.of(TimedOut) == []


async def test_a_caller_whose_slot_would_come_too_late_is_rejected_at_once(queue_of, bank, clock):
    queue = queue_of(interval_seconds=10, max_wait_seconds=2.5)
    _, late = await line_up(queue, bank, clock, *"ab")
    when, error = late.outcome
    assert (when, type(error), error.retry_after) == (0, QueueTimeoutError, 7.5)

    await clock.advance(7.5)
    (again,) = await line_up(queue, bank, clock, "again")
    await clock.advance(2.5)
    assert again.outcome == (10, "again")


async def test_a_queue_that_is_postponed_for_too_long_admits_no_caller(queue_of, bank, clock):
    queue = queue_of(max_wait_seconds=60)
    await queue.postpone(300)
    (caller,) = await line_up(queue, bank, clock, "a")
    assert isinstance(caller.outcome[1], QueueTimeoutError)
    assert caller.outcome[1].retry_after == 240


async def test_a_delay_that_is_too_long_rejects_waiting_callers_at_once(queue_of, bank, clock, listener):
    queue = queue_of(max_wait_seconds=60)
    first, *others = await line_up(queue, bank, clock, *"abc")
    await clock.advance(0.5)

    await queue.postpone(59.5)  # the next turn comes when their time is over, and no later
    await settle()
    assert [caller.outcome for caller in others] == [None, None]

    await queue.postpone(59.6)
    await settle()
    assert first.outcome == (0, "a")
    assert [(when, type(error)) for when, error in (caller.outcome for caller in others)] == [
        (0.5, QueueTimeoutError)
    ] * 2
    assert listener.of(TimedOut) == [TimedOut(policy="bank", seconds=60)] * 2
    assert await size_of(queue) == 0


async def test_a_turn_that_comes_at_the_last_moment_is_taken(queue_of, bank, clock):
    queue = queue_of(max_wait_seconds=2)
    *_, third, fourth = await line_up(queue, bank, clock, *"abcd")
    await clock.advance(2)
    assert third.outcome == (2, "c")
    assert isinstance(fourth.outcome[1], QueueTimeoutError)


async def test_those_overtaken_time_out_on_their_own_time(queue_of, bank, clock):
    queue = queue_of(policy="priority", max_wait_seconds=3, aging_seconds=100)
    await line_up(queue, bank, clock, "first")
    (patient,) = await line_up(queue, bank, clock, "low", priority=5)
    await line_up(queue, bank, clock, *"ab")
    await clock.advance(1)
    await line_up(queue, bank, clock, "c")
    await clock.advance(2)
    assert isinstance(patient.outcome[1], QueueTimeoutError)
    assert patient.outcome[0] == 3
    assert list(bank.starts) == ["first", "a", "b", "c"]


async def test_once_it_has_begun_a_call_may_take_as_long_as_it_likes(queue_of, clock):
    queue = queue_of(max_wait_seconds=1)
    call = OpenCall()
    caller = Caller(queue, call, clock)
    await clock.advance(60)
    call.end()
    await settle()
    assert caller.outcome == (60, "done")


# ---------------------------------------------------------------- full


async def test_beyond_the_capacity_callers_are_refused_at_once(queue_of, bank, clock, listener):
    queue = queue_of(capacity=2)
    *_, refused = await line_up(queue, bank, clock, *"abcd")
    when, error = refused.outcome
    assert (when, type(error)) == (0, QueueFullError)
    assert listener.of(Rejected) == [Rejected(policy="bank", retry_after=error.retry_after)]

    await clock.advance(1)
    await line_up(queue, bank, clock, "e")
    await clock.advance(5)

    assert bank.starts == {"a": 0, "b": 1, "c": 2, "e": 3}


async def test_callers_of_one_tick_are_refused_as_if_they_came_one_by_one(queue_of, bank, clock):
    queue = queue_of(capacity=3)
    callers = [Standing(queue, bank.call(number), clock) for number in range(6)]
    await settle()
    assert [isinstance(caller.outcome and caller.outcome[1], QueueFullError) for caller in callers] == [
        *[False] * 4,
        *[True] * 2,
    ]


@pytest.mark.parametrize(("max_wait", "expected"), [(60, 0.75), (6, 0.75), (5, 1.75), (2.5, 4.25), (1, 5.75)])
async def test_retry_after_is_the_time_until_a_place_with_a_slot_in_time(
    queue_of, bank, clock, max_wait, expected
):
    options = PacedQueueOptions(capacity=6, max_wait_seconds=max_wait)
    store = MemoryPaceStore(options, clock)
    store._options = replace(options, max_wait_seconds=60)
    queue = PacedQueue(store._options, store, clock)  # nobody in line gives up before
    await line_up(queue, bank, clock, *"abcdefg")
    store._options = options
    await clock.advance(0.25)

    (refused,) = await line_up(queue, bank, clock, "refused")
    assert refused.outcome[1].retry_after == expected
    await clock.advance(expected)
    (again,) = await line_up(queue, bank, clock, "again")
    await clock.advance(60)

    assert again.outcome[1] == "again"
    assert bank.starts["again"] - (0.25 + expected) <= max_wait


# ---------------------------------------------------------------- closing


async def test_closing_rejects_waiting_callers_and_does_not_stop_calls_under_way(
    queue_of, bank, clock, listener
):
    queue = queue_of()
    call = OpenCall()
    under_way = Caller(queue, call, clock)
    waiting = await line_up(queue, bank, clock, *"ab")

    queue.close()
    (late,) = await line_up(queue, bank, clock, "c")

    for caller in (*waiting, late):
        assert isinstance(caller.outcome[1], QueueClosedError)
        assert caller.outcome[1].retry_after == 1
    assert len(listener.of(Rejected)) == 3
    assert under_way.outcome is None
    call.end()
    await queue.aclose()
    assert under_way.outcome == (0, "done")
    assert await size_of(queue) == 0
    assert not bank.starts


async def test_closing_withdraws_the_offer_before_it_returns(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    await line_up(queue, bank, clock, *"abc")
    slow_store.hold()
    await line_up(queue, bank, clock, "asking")

    closing = asyncio.create_task(queue.aclose())
    await settle()
    assert not closing.done()
    slow_store.let_go()
    await closing

    assert (await slow_store.status()).size == 0
    assert queue._worker.done()


async def test_a_caller_cancelled_in_the_tick_of_the_closing_is_counted_once(queue_of, bank, clock):
    queue = queue_of()
    _, leaving, staying = await line_up(queue, bank, clock, *"abc")
    leaving.task.cancel()
    queue.close()
    await settle()
    assert leaving.outcome[1] == CANCELLED
    assert isinstance(staying.outcome[1], QueueClosedError)
    assert await size_of(queue) == 0


async def test_closing_twice_or_unused_does_no_harm(queue_of):
    queue = queue_of()
    await queue.aclose()
    await queue.aclose()


# ---------------------------------------------------------------- order


async def test_first_come_first_served_whatever_the_priority(queue_of, bank, clock):
    queue = queue_of()
    await line_up(queue, bank, clock, "a", priority=9)
    await line_up(queue, bank, clock, "b", priority=5)
    await line_up(queue, bank, clock, "c", priority=-5)
    await clock.advance(2)
    assert list(bank.starts) == ["a", "b", "c"]


async def test_by_priority_the_lower_goes_first_and_equals_in_order_of_arrival(queue_of, bank, clock):
    queue = queue_of(policy="priority")
    await line_up(queue, bank, clock, "first")
    for name, priority in {"c": 1, "a": -1, "d": 1, "b": 0, "e": 1}.items():
        await line_up(queue, bank, clock, name, priority=priority)
    await clock.advance(6)
    assert list(bank.starts) == ["first", "a", "b", "c", "d", "e"]


async def test_changing_the_policy_keeps_the_places_of_all_callers(queue_of, bank, clock):
    queue = queue_of()
    await line_up(queue, bank, clock, "first")
    for name, priority in {"a": 3, "b": 2, "c": 1, "d": 2, "e": 0}.items():
        await line_up(queue, bank, clock, name, priority=priority)

    await clock.advance(1)
    await queue.set_policy("priority")
    await clock.advance(2)
    await queue.set_policy("fifo")
    assert (await queue.status()).policy == "fifo"
    await clock.advance(3)

    assert list(bank.starts) == ["first", "a", "e", "c", "b", "d"]


@pytest.mark.parametrize(("levels", "aging"), [(1, 4), (3, 2), (5, 1.5)])
async def test_no_caller_starves(queue_of, bank, clock, levels, aging):
    """A caller is overtaken by a more urgent one only if that came within so many agings after it."""
    queue = queue_of(policy="priority", aging_seconds=aging, capacity=1000)
    await line_up(queue, bank, clock, "first")
    (patient,) = await line_up(queue, bank, clock, "patient", priority=levels)
    for second in range(40):  # the line never empties: two come for each that goes
        await line_up(queue, bank, clock, (second, 0), (second, 1))
        await clock.advance(1)

    before = [name for name in list(bank.starts)[1:] if isinstance(name, tuple)]
    before = before[: list(bank.starts).index("patient") - 1]
    assert patient.outcome[1] == "patient"
    assert all(second < levels * aging for second, _ in before)
    assert bank.starts["patient"] == len(before) + 1


@pytest.mark.parametrize("priority", [-1001, 1001, float("nan"), 10**400])
async def test_an_impossible_priority_is_refused_by_name(queue_of, bank, priority):
    with pytest.raises(ValueError, match="priority"):
        await queue_of().run(bank.call("never"), priority=priority)


async def test_an_unknown_policy_is_refused_by_name(queue_of):
    with pytest.raises(ValueError, match="policy"):
        await queue_of().set_policy("lifo")


# ---------------------------------------------------------------- postponing


async def test_no_call_starts_while_postponed_and_the_pace_holds_after(queue_of, bank, clock):
    queue = queue_of()
    await line_up(queue, bank, clock, *"abc")
    await queue.postpone(5)
    await queue.postpone(2)
    await clock.advance(10)
    assert bank.starts == {"a": 0, "b": 5, "c": 6}


async def test_postponing_does_not_bring_a_turn_forward(queue_of, bank, clock):
    queue = queue_of()
    await line_up(queue, bank, clock, *"ab")
    await queue.postpone(0.25)
    await clock.advance(3)
    assert bank.starts["b"] == 1


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 86_401])
async def test_an_impossible_delay_is_refused_by_name(queue_of, seconds):
    with pytest.raises(ValueError, match="seconds"):
        await queue_of().postpone(seconds)


# ---------------------------------------------------------------- turns given back


async def reject():
    raise CircuitOpenError("breaker", "the circuit is open", 30)


async def test_behind_an_open_breaker_all_waiting_callers_are_rejected_at_once(queue_of, bank, clock):
    queue = queue_of()
    await line_up(queue, bank, clock, "a")
    behind = [Caller(queue, reject, clock) for _ in range(20)]
    await line_up(queue, bank, clock, "b")

    await clock.advance(1)

    assert all(type(caller.outcome[1]) is CircuitOpenError for caller in behind)
    assert {caller.outcome[0] for caller in behind} == {1}
    assert bank.starts == {"a": 0, "b": 1}


async def test_a_turn_given_back_late_does_not_bring_the_next_too_close(queue_of, bank, clock):
    queue = queue_of()

    async def reject_late():
        await clock.sleep(1.5)
        await reject()

    Caller(queue, reject_late, clock)
    await line_up(queue, bank, clock, *"ab")
    await clock.advance(5)
    assert bank.starts == {"a": 1, "b": 2}


async def test_a_turn_given_back_does_not_end_a_delay(queue_of, bank, clock):
    queue = queue_of(interval_seconds=10)

    async def postpone_and_reject():
        await queue.postpone(4)
        await reject()

    Caller(queue, postpone_and_reject, clock)
    await line_up(queue, bank, clock, "a")
    await clock.advance(20)
    assert bank.starts == {"a": 4}


# ---------------------------------------------------------------- trouble


class FailingStore(MemoryPaceStore):
    """Fails when told to."""

    is_failing = False

    async def ask(self, worker, offer):
        if self.is_failing:
            raise OSError("away")
        return await super().ask(worker, offer)

    async def give_back(self, turn):
        if self.is_failing:
            raise OSError("away")
        await super().give_back(turn)


async def test_while_the_store_fails_newcomers_hear_of_it_and_the_line_waits(queue_of, bank, clock, caplog):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store)
    await line_up(queue, bank, clock, *"abc")
    store.is_failing = True
    await clock.advance(3)
    (newcomer,) = await line_up(queue, bank, clock, "newcomer")
    assert isinstance(newcomer.outcome[1], OSError)
    assert list(bank.starts) == ["a"]
    assert "bank: the store failed: OSError('away')" in caplog.text

    store.is_failing = False
    await clock.advance(2)

    assert bank.starts == {"a": 0, "b": 4, "c": 5}


async def test_those_in_line_wait_no_longer_than_they_may_though_the_store_fails(queue_of, bank, clock):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store, max_wait_seconds=3.5)
    _, waiting = await line_up(queue, bank, clock, *"ab")
    store.is_failing = True
    await clock.advance(4)
    assert waiting.outcome[0] == 3.5
    assert isinstance(waiting.outcome[1], QueueTimeoutError)
    assert queue._worker.done()


async def test_a_turn_that_cannot_be_given_back_is_lost_and_nothing_else(queue_of, bank, clock):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store)

    async def lose():
        store.is_failing = True
        await reject()

    rejected = Caller(queue, lose, clock)
    await settle()
    assert isinstance(rejected.outcome[1], RejectedError)
    store.is_failing = False
    await line_up(queue, bank, clock, "a")
    await clock.advance(1)
    assert bank.starts == {"a": 1}


async def test_an_error_of_a_listener_affects_no_call(clock, bank):
    def listener(event):
        raise ValueError(event)

    options = PacedQueueOptions(capacity=1, max_wait_seconds=1)
    queue = PacedQueue(options, MemoryPaceStore(options, clock), clock, listener=listener)
    a, b, c = await line_up(queue, bank, clock, *"abc")
    await queue.postpone(10)
    await settle()
    assert a.outcome == (0, "a")
    assert isinstance(b.outcome[1], QueueTimeoutError)
    assert isinstance(c.outcome[1], QueueFullError)


# ---------------------------------------------------------------- what it costs

MANY = 10_000


async def test_ten_thousand_waiting_callers_cost_under_fifty_megabytes(queue_of, bank, clock):
    queue = queue_of(capacity=MANY, max_wait_seconds=2 * MANY)
    tracemalloc.start()
    try:
        tasks = [asyncio.create_task(queue.run(bank.call("x"), priority=n % 7)) for n in range(MANY + 1)]
        await settle()
        waiting, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert await size_of(queue) == MANY
    assert waiting < 50_000_000

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert await size_of(queue) == 0
    assert queue._worker.done()


async def test_callers_of_one_tick_share_a_question(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    for name in "abcd":
        Standing(queue, bank.call(name), clock)
    await settle()
    assert slow_store.questions == 2  # one for places and a turn, one for who is first now


async def test_entries_of_cancelled_callers_do_not_accumulate(queue_of, bank, clock):
    queue = queue_of(max_wait_seconds=1000)
    await queue.postpone(100)
    await line_up(queue, bank, clock, "patient")
    for _ in range(10):
        leaving = await line_up(queue, bank, clock, *range(30))
        for caller in leaving:
            caller.task.cancel()
        await settle()
    assert queue._queue.size == 1
    assert all(len(order) < 70 for order in (queue._queue._by_arrival, queue._queue._by_rank))
    await clock.advance(100)
    assert bank.starts == {"patient": 100}


# ---------------------------------------------------------------- slots


async def test_a_slot_that_is_given_back_goes_to_the_next_caller_at_once(queue_of, bank, clock):
    queue = queue_of()
    with await queue.slot() as slot:
        await line_up(queue, bank, clock, "next", "last")
        for _ in range(2):
            slot.give_back()
            await settle()
    await clock.advance(1)
    assert bank.starts == {"next": 0, "last": 1}


@pytest.mark.parametrize(("error", "start"), [(CircuitOpenError("breaker", "open", 1), 0), (KeyError(), 1)])
async def test_a_slot_is_given_back_only_by_a_rejection(queue_of, bank, clock, error, start):
    queue = queue_of()
    with pytest.raises(type(error)), await queue.slot():
        raise error
    await line_up(queue, bank, clock, "next")
    await clock.advance(1)
    assert bank.starts == {"next": start}


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            (option, value)
            for option in ("interval_seconds", "max_wait_seconds", "aging_seconds")
            for value in (0, -1, 0.0009, 86_401, float("inf"), float("nan"))
        ),
        *(("capacity", value) for value in (0, -1, 1.5, float("nan"))),
        ("policy", "lifo"),
    ],
)
def test_impossible_options_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"^{option} "):
        PacedQueueOptions(**{option: value})


@pytest.mark.parametrize(
    ("capacity", "workers", "share"), [(100, 1, 100), (100, 4, 25), (100, 3, 33), (2, 4, 1)]
)
def test_the_share_of_a_worker_divides_the_pace_and_the_capacity(capacity, workers, share):
    options = PacedQueueOptions(interval_seconds=0.5, capacity=capacity, max_wait_seconds=7).share(workers)
    assert options == PacedQueueOptions(interval_seconds=0.5 * workers, capacity=share, max_wait_seconds=7)
