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
    """A service that records its callers and the times of their calls."""

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


async def add_callers(queue, bank, clock, *names, priority=0):
    """Add callers to the queue, one after another."""
    callers = []
    for name in names:
        callers.append(CallerWithPriority(queue, bank.call(name), clock, priority))
        await settle()
    return callers


class CallerWithPriority(Caller):
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
async def test_calls_start_at_least_an_interval_apart(queue_of, bank, clock, interval, gaps):
    queue = queue_of(interval_seconds=interval, max_wait_seconds=1000)
    interval_us, expected_us = round(interval * 1e6), []
    for number, gap in enumerate(gaps):
        await clock.advance(gap * interval)
        arrived_us = round(clock.monotonic() * 1e6)
        earliest_us = expected_us[-1] + interval_us if expected_us else 0
        expected_us.append(max(arrived_us, earliest_us))
        await add_callers(queue, bank, clock, number)
    await clock.advance(interval * len(gaps))

    assert list(bank.starts) == list(range(len(gaps)))
    assert [round(start * 1e6) for start in bank.starts.values()] == expected_us


async def test_a_slow_call_does_not_delay_others(queue_of, clock):
    queue = queue_of()
    calls = [OpenCall() for _ in range(3)]
    for call in calls:
        Caller(queue, call, clock)

    await clock.advance(2)

    assert all(call.is_running for call in calls)
    for call in calls:
        call.end()
    await settle()


async def test_the_caller_gets_the_result_or_error_of_the_call(queue_of, clock):
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
    await add_callers(queue, bank, clock, "next")
    assert isinstance(failed.outcome[1], ConnectionError)
    assert not bank.starts

    await clock.advance(1)

    assert bank.starts == {"next": 1}


async def test_a_paced_queue_works_in_a_pipeline(queue_of, bank, clock):
    pipeline = Pipeline(queue_of())
    assert await clock.drive(pipeline.run(bank.call("only"))) == "only"


async def test_no_task_runs_when_no_caller_waits(queue_of, bank, clock):
    queue = queue_of()
    await add_callers(queue, bank, clock, *"abc")
    await clock.advance(3)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await size_of(queue) == 0


async def test_every_start_sends_an_event_with_its_wait(queue_of, bank, clock, listener):
    queue = queue_of()
    await add_callers(queue, bank, clock, *"abc")
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


async def test_a_cancelled_caller_uses_no_slot(queue_of, bank, clock):
    queue = queue_of()
    _, b, c, _ = await add_callers(queue, bank, clock, *"abcd")
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
    _, unlucky, after = await add_callers(queue, bank, clock, *"abc")
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
async def test_a_caller_cancelled_on_arrival_is_removed(queue_of, bank, clock, ticks):
    queue = queue_of()
    await add_callers(queue, bank, clock, "a")
    leaving = CallerWithPriority(queue, bank.call("b"), clock)
    for _ in range(ticks):
        await asyncio.sleep(0)

    leaving.task.cancel()
    await settle()

    assert leaving.outcome[1] == CANCELLED
    assert await size_of(queue) == 0
    await add_callers(queue, bank, clock, "c")
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
    _, *leaving = await add_callers(queue, bank, clock, "a", *callers)
    clock.jump(1)  # the slot is due

    await queue.postpone(0)  # wakes the worker, which runs before the tasks that are cancelled here
    for caller in leaving:
        caller.task.cancel()
    await settle()

    assert store.questions < 10
    assert await size_of(queue) == 0
    await add_callers(queue, bank, clock, "z")
    assert bank.starts == {"a": 0, "z": 1}


class SlowStore(MemoryPaceStore):
    """A store that answers an offer only after the test releases it."""

    def __init__(self, options, clock):
        super().__init__(options, clock)
        self.questions = 0
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    def hold(self):
        self._may_answer.clear()

    def release(self):
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
    (cancelled,) = await add_callers(queue, bank, clock, "gone")
    cancelled.task.cancel()
    await settle()
    slow_store.release()
    await settle()

    await add_callers(queue, bank, clock, "next")

    assert bank.starts == {"next": 0}


async def test_a_newcomer_cancelled_during_an_offer_takes_no_place(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    await add_callers(queue, bank, clock, "a")
    slow_store.hold()
    (cancelled,) = await add_callers(queue, bank, clock, "gone")
    cancelled.task.cancel()
    await settle()
    slow_store.release()
    await settle()

    assert await size_of(queue) == 0
    await add_callers(queue, bank, clock, *"bcd")
    assert await size_of(queue) == 3


async def test_callers_that_arrive_during_an_offer_are_in_the_next_offer(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    slow_store.hold()
    await add_callers(queue, bank, clock, *"abc")
    assert slow_store.questions == 1
    slow_store.release()
    await clock.advance(2)
    assert bank.starts == {"a": 0, "b": 1, "c": 2}


# ---------------------------------------------------------------- waiting too long


async def test_a_caller_that_is_overtaken_for_too_long_times_out_and_uses_no_slot(
    queue_of, bank, clock, listener
):
    queue = queue_of(policy="priority", max_wait_seconds=2.5, aging_seconds=100)
    *_, late = await add_callers(queue, bank, clock, *"abc", priority=1)
    await clock.advance(1)
    await add_callers(queue, bank, clock, "urgent")
    await clock.advance(1.25)
    await add_callers(queue, bank, clock, "e", priority=1)

    await clock.advance(5)

    assert late.outcome[0] == 2.5
    assert isinstance(late.outcome[1], QueueTimeoutError)
    assert bank.starts == {"a": 0, "b": 1, "urgent": 2, "e": 3}
    assert listener.of(TimedOut) == [TimedOut(policy="bank", seconds=2.5)]


async def test_the_longest_wait_is_exact_to_the_microsecond(queue_of, bank, clock):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store, max_wait_seconds=2.5)
    _, late = await add_callers(queue, bank, clock, *"ab")
    store.is_failing = True  # so that the time of the next slot is unknown
    await clock.advance(2.499999)
    assert late.outcome is None

    await clock.advance(0.000001)

    when, error = late.outcome
    assert (when, type(error), error.seconds, error.retry_after) == (2.5, QueueTimeoutError, 2.5, None)
    assert queue._worker.done()


# ---------------------------------------------------------------- too late from the start


async def test_each_of_110_callers_is_served_or_rejected_at_once(queue_of, bank, clock, listener):
    queue = queue_of()  # the defaults: one call a second, 100 callers in the queue, each for at most 60 s
    callers = [CallerWithPriority(queue, bank.call(number), clock) for number in range(110)]
    await settle()

    refused = [caller for caller in callers if caller.outcome and caller.outcome[1] != 0]
    assert refused == callers[61:], "one runs, and 60 get their slots within 60 s"
    for _, error in (caller.outcome for caller in refused):
        assert (type(error), error.seconds, error.retry_after) == (QueueTimeoutError, 60, 1)
    assert len(listener.of(Rejected)) == 49

    await clock.advance(60)
    assert list(bank.starts) == list(range(61))
    assert listener.of(TimedOut) == []


async def test_a_caller_whose_slot_would_come_too_late_is_rejected_at_once(queue_of, bank, clock):
    queue = queue_of(interval_seconds=10, max_wait_seconds=2.5)
    _, late = await add_callers(queue, bank, clock, *"ab")
    when, error = late.outcome
    assert (when, type(error), error.retry_after) == (0, QueueTimeoutError, 7.5)

    await clock.advance(7.5)
    (again,) = await add_callers(queue, bank, clock, "again")
    await clock.advance(2.5)
    assert again.outcome == (10, "again")


async def test_a_queue_that_is_postponed_for_too_long_admits_no_caller(queue_of, bank, clock):
    queue = queue_of(max_wait_seconds=60)
    await queue.postpone(300)
    (caller,) = await add_callers(queue, bank, clock, "a")
    assert isinstance(caller.outcome[1], QueueTimeoutError)
    assert caller.outcome[1].retry_after == 240


async def test_a_delay_that_is_too_long_rejects_waiting_callers_at_once(queue_of, bank, clock, listener):
    queue = queue_of(max_wait_seconds=60)
    first, *others = await add_callers(queue, bank, clock, *"abc")
    await clock.advance(0.5)

    await queue.postpone(59.5)  # the next slot is due when their time is over, and no later
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


async def test_a_slot_at_the_end_of_the_longest_wait_is_used(queue_of, bank, clock):
    queue = queue_of(max_wait_seconds=2)
    *_, third, fourth = await add_callers(queue, bank, clock, *"abcd")
    await clock.advance(2)
    assert third.outcome == (2, "c")
    assert isinstance(fourth.outcome[1], QueueTimeoutError)


async def test_overtaken_callers_time_out_after_their_own_longest_wait(queue_of, bank, clock):
    queue = queue_of(policy="priority", max_wait_seconds=3, aging_seconds=100)
    await add_callers(queue, bank, clock, "first")
    (patient,) = await add_callers(queue, bank, clock, "low", priority=5)
    await add_callers(queue, bank, clock, *"ab")
    await clock.advance(1)
    await add_callers(queue, bank, clock, "c")
    await clock.advance(2)
    assert isinstance(patient.outcome[1], QueueTimeoutError)
    assert patient.outcome[0] == 3
    assert list(bank.starts) == ["first", "a", "b", "c"]


async def test_the_duration_of_a_call_is_not_limited(queue_of, clock):
    queue = queue_of(max_wait_seconds=1)
    call = OpenCall()
    caller = Caller(queue, call, clock)
    await clock.advance(60)
    call.end()
    await settle()
    assert caller.outcome == (60, "done")


# ---------------------------------------------------------------- full


async def test_callers_beyond_the_capacity_are_rejected_at_once(queue_of, bank, clock, listener):
    queue = queue_of(capacity=2)
    *_, refused = await add_callers(queue, bank, clock, *"abcd")
    when, error = refused.outcome
    assert (when, type(error)) == (0, QueueFullError)
    assert listener.of(Rejected) == [Rejected(policy="bank", retry_after=error.retry_after)]

    await clock.advance(1)
    await add_callers(queue, bank, clock, "e")
    await clock.advance(5)

    assert bank.starts == {"a": 0, "b": 1, "c": 2, "e": 3}


async def test_callers_of_one_tick_are_rejected_as_if_they_came_one_by_one(queue_of, bank, clock):
    queue = queue_of(capacity=3)
    callers = [CallerWithPriority(queue, bank.call(number), clock) for number in range(6)]
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
    queue = PacedQueue(store._options, store, clock)  # no caller in the queue times out before
    await add_callers(queue, bank, clock, *"abcdefg")
    store._options = options
    await clock.advance(0.25)

    (refused,) = await add_callers(queue, bank, clock, "refused")
    assert refused.outcome[1].retry_after == expected
    await clock.advance(expected)
    (again,) = await add_callers(queue, bank, clock, "again")
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
    waiting = await add_callers(queue, bank, clock, *"ab")

    queue.close()
    (late,) = await add_callers(queue, bank, clock, "c")

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
    await add_callers(queue, bank, clock, *"abc")
    slow_store.hold()
    await add_callers(queue, bank, clock, "asking")

    closing = asyncio.create_task(queue.aclose())
    await settle()
    assert not closing.done()
    slow_store.release()
    await closing

    assert (await slow_store.status()).size == 0
    assert queue._worker.done()


async def test_a_caller_cancelled_in_the_tick_of_the_closing_is_counted_once(queue_of, bank, clock):
    queue = queue_of()
    _, leaving, staying = await add_callers(queue, bank, clock, *"abc")
    leaving.task.cancel()
    queue.close()
    await settle()
    assert leaving.outcome[1] == CANCELLED
    assert isinstance(staying.outcome[1], QueueClosedError)
    assert await size_of(queue) == 0


async def test_an_unused_queue_can_be_closed_twice(queue_of):
    queue = queue_of()
    await queue.aclose()
    await queue.aclose()


# ---------------------------------------------------------------- order


async def test_by_fifo_callers_are_served_in_order_of_arrival(queue_of, bank, clock):
    queue = queue_of()
    await add_callers(queue, bank, clock, "a", priority=9)
    await add_callers(queue, bank, clock, "b", priority=5)
    await add_callers(queue, bank, clock, "c", priority=-5)
    await clock.advance(2)
    assert list(bank.starts) == ["a", "b", "c"]


async def test_by_priority_the_lowest_number_is_served_first(queue_of, bank, clock):
    queue = queue_of(policy="priority")
    await add_callers(queue, bank, clock, "first")
    for name, priority in {"c": 1, "a": -1, "d": 1, "b": 0, "e": 1}.items():
        await add_callers(queue, bank, clock, name, priority=priority)
    await clock.advance(6)
    assert list(bank.starts) == ["first", "a", "b", "c", "d", "e"]


async def test_changing_the_policy_keeps_the_places_of_all_callers(queue_of, bank, clock):
    queue = queue_of()
    await add_callers(queue, bank, clock, "first")
    for name, priority in {"a": 3, "b": 2, "c": 1, "d": 2, "e": 0}.items():
        await add_callers(queue, bank, clock, name, priority=priority)

    await clock.advance(1)
    await queue.set_policy("priority")
    await clock.advance(2)
    await queue.set_policy("fifo")
    assert (await queue.status()).policy == "fifo"
    await clock.advance(3)

    assert list(bank.starts) == ["first", "a", "e", "c", "b", "d"]


@pytest.mark.parametrize(("levels", "aging"), [(1, 4), (3, 2), (5, 1.5)])
async def test_no_caller_starves(queue_of, bank, clock, levels, aging):
    """A more urgent caller is served first only if it came soon enough: one aging time per level."""
    queue = queue_of(policy="priority", aging_seconds=aging, capacity=1000)
    await add_callers(queue, bank, clock, "first")
    (patient,) = await add_callers(queue, bank, clock, "patient", priority=levels)
    for second in range(40):  # the queue never becomes empty: two callers arrive for each that starts
        await add_callers(queue, bank, clock, (second, 0), (second, 1))
        await clock.advance(1)

    before = [name for name in list(bank.starts)[1:] if isinstance(name, tuple)]
    before = before[: list(bank.starts).index("patient") - 1]
    assert patient.outcome[1] == "patient"
    assert all(second < levels * aging for second, _ in before)
    assert bank.starts["patient"] == len(before) + 1


@pytest.mark.parametrize("priority", [-1001, 1001, float("nan"), 10**400])
async def test_an_error_names_the_invalid_priority(queue_of, bank, priority):
    with pytest.raises(ValueError, match="priority"):
        await queue_of().run(bank.call("never"), priority=priority)


async def test_an_error_names_the_unknown_policy(queue_of):
    with pytest.raises(ValueError, match="policy"):
        await queue_of().set_policy("lifo")


# ---------------------------------------------------------------- postponing


async def test_no_call_starts_while_postponed_and_the_pace_applies_afterwards(queue_of, bank, clock):
    queue = queue_of()
    await add_callers(queue, bank, clock, *"abc")
    await queue.postpone(5)
    await queue.postpone(2)
    await clock.advance(10)
    assert bank.starts == {"a": 0, "b": 5, "c": 6}


async def test_postponing_does_not_make_a_slot_due_sooner(queue_of, bank, clock):
    queue = queue_of()
    await add_callers(queue, bank, clock, *"ab")
    await queue.postpone(0.25)
    await clock.advance(3)
    assert bank.starts["b"] == 1


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 86_401])
async def test_an_error_names_the_invalid_delay(queue_of, seconds):
    with pytest.raises(ValueError, match="seconds"):
        await queue_of().postpone(seconds)


# ---------------------------------------------------------------- slots that are given back


async def reject():
    raise CircuitOpenError("breaker", "the circuit is open", 30)


async def test_behind_an_open_breaker_all_waiting_callers_are_rejected_at_once(queue_of, bank, clock):
    queue = queue_of()
    await add_callers(queue, bank, clock, "a")
    behind = [Caller(queue, reject, clock) for _ in range(20)]
    await add_callers(queue, bank, clock, "b")

    await clock.advance(1)

    assert all(type(caller.outcome[1]) is CircuitOpenError for caller in behind)
    assert {caller.outcome[0] for caller in behind} == {1}
    assert bank.starts == {"a": 0, "b": 1}


async def test_a_slot_given_back_late_does_not_make_the_next_due_too_soon(queue_of, bank, clock):
    queue = queue_of()

    async def reject_late():
        await clock.sleep(1.5)
        await reject()

    Caller(queue, reject_late, clock)
    await add_callers(queue, bank, clock, *"ab")
    await clock.advance(5)
    assert bank.starts == {"a": 1, "b": 2}


async def test_a_slot_that_is_given_back_does_not_end_a_delay(queue_of, bank, clock):
    queue = queue_of(interval_seconds=10)

    async def postpone_and_reject():
        await queue.postpone(4)
        await reject()

    Caller(queue, postpone_and_reject, clock)
    await add_callers(queue, bank, clock, "a")
    await clock.advance(20)
    assert bank.starts == {"a": 4}


# ---------------------------------------------------------------- trouble


class FailingStore(MemoryPaceStore):
    """A store that a test can make unavailable."""

    is_failing = False

    async def ask(self, worker, offer):
        if self.is_failing:
            raise OSError("away")
        return await super().ask(worker, offer)

    async def give_back(self, turn):
        if self.is_failing:
            raise OSError("away")
        await super().give_back(turn)


async def test_while_the_store_fails_newcomers_get_its_error_and_the_queue_waits(
    queue_of, bank, clock, caplog
):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store)
    await add_callers(queue, bank, clock, *"abc")
    store.is_failing = True
    await clock.advance(3)
    (newcomer,) = await add_callers(queue, bank, clock, "newcomer")
    assert isinstance(newcomer.outcome[1], OSError)
    assert list(bank.starts) == ["a"]
    assert "bank: the store failed: OSError('away')" in caplog.text

    store.is_failing = False
    await clock.advance(2)

    assert bank.starts == {"a": 0, "b": 4, "c": 5}


async def test_while_the_store_fails_callers_time_out_after_the_longest_wait(queue_of, bank, clock):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store, max_wait_seconds=3.5)
    _, waiting = await add_callers(queue, bank, clock, *"ab")
    store.is_failing = True
    await clock.advance(4)
    assert waiting.outcome[0] == 3.5
    assert isinstance(waiting.outcome[1], QueueTimeoutError)
    assert queue._worker.done()


async def test_an_error_on_giving_back_a_slot_is_only_logged(queue_of, bank, clock):
    store = FailingStore(PacedQueueOptions(), clock)
    queue = queue_of(store=store)

    async def raise_unavailable():
        store.is_failing = True
        await reject()

    rejected = Caller(queue, raise_unavailable, clock)
    await settle()
    assert isinstance(rejected.outcome[1], RejectedError)
    store.is_failing = False
    await add_callers(queue, bank, clock, "a")
    await clock.advance(1)
    assert bank.starts == {"a": 1}


async def test_an_error_of_a_listener_affects_no_call(clock, bank):
    def listener(event):
        raise ValueError(event)

    options = PacedQueueOptions(capacity=1, max_wait_seconds=1)
    queue = PacedQueue(options, MemoryPaceStore(options, clock), clock, listener=listener)
    a, b, c = await add_callers(queue, bank, clock, *"abc")
    await queue.postpone(10)
    await settle()
    assert a.outcome == (0, "a")
    assert isinstance(b.outcome[1], QueueTimeoutError)
    assert isinstance(c.outcome[1], QueueFullError)


# ---------------------------------------------------------------- cost

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


async def test_callers_of_one_tick_share_an_offer(queue_of, bank, clock, slow_store):
    queue = queue_of(store=slow_store)
    for name in "abcd":
        CallerWithPriority(queue, bank.call(name), clock)
    await settle()
    assert slow_store.questions == 2  # one for the places and a slot, one for the first caller


async def test_entries_of_cancelled_callers_do_not_accumulate(queue_of, bank, clock):
    queue = queue_of(max_wait_seconds=1000)
    await queue.postpone(100)
    await add_callers(queue, bank, clock, "patient")
    for _ in range(10):
        leaving = await add_callers(queue, bank, clock, *range(30))
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
        await add_callers(queue, bank, clock, "next", "last")
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
    await add_callers(queue, bank, clock, "next")
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
def test_an_error_names_the_invalid_option(option, value):
    with pytest.raises(ValueError, match=f"^{option} "):
        PacedQueueOptions(**{option: value})


@pytest.mark.parametrize(
    ("capacity", "workers", "share"), [(100, 1, 100), (100, 4, 25), (100, 3, 33), (2, 4, 1)]
)
def test_the_share_of_a_worker_divides_the_pace_and_the_capacity(capacity, workers, share):
    options = PacedQueueOptions(interval_seconds=0.5, capacity=capacity, max_wait_seconds=7).share(workers)
    assert options == PacedQueueOptions(interval_seconds=0.5 * workers, capacity=share, max_wait_seconds=7)
