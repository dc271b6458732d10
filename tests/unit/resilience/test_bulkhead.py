"""The bulkhead, by example and under random use."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.errors import BulkheadFullError
from src.resilience.events import Rejected
from tests.support.clock import FakeClock, settle
from tests.support.listener import RecordingListener


class Caller:
    """One call through a bulkhead that stays inside until told to leave."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.is_inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(bulkhead.run(self._stay))

    async def _stay(self) -> str:
        self.is_inside = True
        try:
            await self._leave.wait()
        finally:
            self.is_inside = False
        return "done"

    def leave(self) -> None:
        self._leave.set()


def bulkhead(clock: FakeClock, listener=lambda _: None, **options: float) -> Bulkhead:
    defaults = {"permits": 1, "max_waiting": 2, "max_wait_seconds": 5.0}
    return Bulkhead(BulkheadOptions(**{**defaults, **options}), clock, name="external", listener=listener)


async def enter(room: Bulkhead, count: int) -> list[Caller]:
    callers = []
    for _ in range(count):
        callers.append(Caller(room))
        await settle()
    return callers


async def dismiss(callers: list[Caller]) -> None:
    for caller in callers:
        caller.leave()
        caller.task.cancel()
    await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)


async def test_calls_beyond_the_permits_wait_in_order(clock: FakeClock):
    room = bulkhead(clock)
    first, second, third = await enter(room, 3)
    assert (room.in_use, room.waiting) == (1, 2)

    first.leave()
    await settle()
    assert (second.is_inside, third.is_inside) == (True, False)

    second.leave()
    await settle()
    assert third.is_inside

    third.leave()
    assert await third.task == "done"
    assert (room.in_use, room.waiting) == (0, 0)


async def test_a_call_beyond_the_line_is_refused_at_once(clock: FakeClock, listener: RecordingListener):
    room = bulkhead(clock, listener)
    callers = await enter(room, 3)

    with pytest.raises(BulkheadFullError) as raised:
        await room.run(lambda: asyncio.sleep(0))

    assert listener.events == [Rejected(policy="external", retry_after=raised.value.retry_after)]
    assert (room.in_use, room.waiting) == (1, 2)
    await dismiss(callers)


async def test_a_wait_that_is_too_long_ends_in_refusal(clock: FakeClock, listener: RecordingListener):
    room = bulkhead(clock, listener)
    inside, waiting = await enter(room, 2)

    await clock.advance(5.0)

    with pytest.raises(BulkheadFullError, match="longest wait"):
        await waiting.task
    assert (room.in_use, room.waiting) == (1, 0)
    assert len(listener.of(Rejected)) == 1
    await dismiss([inside])


async def test_the_time_inside_is_not_limited(clock: FakeClock):
    room = bulkhead(clock)
    first, second = await enter(room, 2)
    first.leave()
    await settle()

    await clock.advance(60)

    assert second.is_inside
    await dismiss([second])


async def test_a_failed_call_gives_its_permit_back(clock: FakeClock):
    room = bulkhead(clock)

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await room.run(fail)

    assert room.in_use == 0


async def test_a_timeout_error_of_the_call_is_no_refusal(clock: FakeClock):
    room = bulkhead(clock)
    (first,) = await enter(room, 1)

    async def fail() -> None:
        raise TimeoutError("its own")

    second = asyncio.create_task(room.run(fail))
    await settle()
    first.leave()

    with pytest.raises(TimeoutError, match="its own"):
        await second


async def test_a_cancelled_call_gives_its_permit_to_the_next(clock: FakeClock):
    room = bulkhead(clock)
    inside, waiting = await enter(room, 2)

    inside.task.cancel()
    await settle()

    assert waiting.is_inside
    assert room.in_use == 1
    await dismiss([waiting])
    assert room.in_use == 0


async def test_a_cancelled_wait_gives_its_place_up(clock: FakeClock):
    room = bulkhead(clock)
    inside, leaver, waiting = await enter(room, 3)

    leaver.task.cancel()
    await settle()
    assert room.waiting == 1
    inside.leave()
    await settle()

    assert waiting.is_inside
    await dismiss([waiting])


@pytest.mark.parametrize("order", ["permit first", "cancellation first"])
async def test_a_permit_and_a_cancellation_in_one_tick_lose_no_permit(clock: FakeClock, order: str):
    room = bulkhead(clock)
    inside, unlucky, waiting = await enter(room, 3)

    if order == "permit first":
        room.resize(2)
        unlucky.task.cancel()
    else:
        unlucky.task.cancel()
        room.resize(2)
    await settle()

    assert unlucky.task.cancelled()
    assert waiting.is_inside
    assert (room.in_use, room.waiting) == (2, 0)
    await dismiss([inside, waiting])
    assert room.in_use == 0


class TestResizing:
    async def test_more_permits_let_waiting_calls_in(self, clock: FakeClock):
        room = bulkhead(clock)
        callers = await enter(room, 3)

        room.resize(3)
        await settle()

        assert all(caller.is_inside for caller in callers)
        assert room.permits == 3
        await dismiss(callers)

    async def test_fewer_permits_stop_nobody_and_hold_from_then_on(self, clock: FakeClock):
        room = bulkhead(clock, permits=3)
        first, second, third, fourth = await enter(room, 4)

        room.resize(1)
        first.leave()
        second.leave()
        await settle()
        assert (third.is_inside, fourth.is_inside) == (True, False)

        third.leave()
        await settle()
        assert fourth.is_inside
        await dismiss([fourth])

    def test_no_permits_at_all_are_refused(self, clock: FakeClock):
        with pytest.raises(ValueError, match="permits"):
            bulkhead(clock).resize(0)


async def test_the_refused_are_told_when_a_permit_comes_free_on_average(clock: FakeClock):
    room = bulkhead(clock, permits=4, max_waiting=0)
    for _ in range(200):
        await clock.drive(room.run(lambda: clock.sleep(8.0)))
    callers = await enter(room, 4)

    with pytest.raises(BulkheadFullError) as raised:
        await room.run(lambda: clock.sleep(8.0))

    assert raised.value.retry_after == pytest.approx(2.0)
    await dismiss(callers)


STEPS = st.lists(
    st.one_of(
        st.just(("enter", 0)),
        st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 20)),
        st.tuples(st.just("resize"), st.integers(1, 4)),
        st.tuples(st.just("advance"), st.integers(1, 6)),
        st.just(("settle", 0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps=STEPS)
async def test_no_permit_is_lost_or_made_whatever_happens(steps: list[tuple[str, int]]):
    clock = FakeClock()
    room = bulkhead(clock, permits=2, max_waiting=3)
    callers: list[Caller] = []
    was_over = 0  # calls inside when permits were last reduced

    for step, number in steps:
        if step == "enter":
            callers.append(Caller(room))
        elif step == "leave" and callers:
            callers[number % len(callers)].leave()
        elif step == "cancel" and callers:
            callers[number % len(callers)].task.cancel()
        elif step == "resize":
            room.resize(number)
            was_over = room.in_use
        elif step == "advance":
            await clock.advance(number)
        elif step == "settle":
            await settle()
            inside = sum(caller.is_inside for caller in callers)
            unfinished = sum(not caller.task.done() for caller in callers)
            assert room.in_use == inside
            assert room.waiting == unfinished - inside
            assert room.waiting == 0 or room.in_use >= room.permits, "a permit lies idle"
        assert room.in_use <= max(room.permits, was_over)
        assert room.waiting <= 3

    await dismiss(callers)
    assert (room.in_use, room.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("permits", value) for value in (0, -1, math.nan)),
        *(("max_waiting", value) for value in (-1, math.nan)),
        *(("max_wait_seconds", value) for value in (0, -1, math.inf, math.nan)),
    ],
)
def test_impossible_options_are_refused_by_name(option: str, value: float):
    with pytest.raises(ValueError, match=option):
        BulkheadOptions(**{option: value})
