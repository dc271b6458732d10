"""The bulkhead, by example. Under random use: tests/properties/test_bulkhead_model.py."""

import asyncio
import math

import pytest

from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.errors import BulkheadFullError
from src.resilience.events import Rejected, Waited
from tests.support.calls import Caller, OpenCall
from tests.support.clock import FakeClock, settle
from tests.support.listener import RecordingListener


def bulkhead(clock: FakeClock, listener=lambda _: None, **options: float) -> Bulkhead:
    defaults = {"permits": 1, "max_waiting": 2, "max_wait_seconds": 5.0}
    return Bulkhead(BulkheadOptions(**{**defaults, **options}), clock, name="external", listener=listener)


async def enter(clock: FakeClock, room: Bulkhead, count: int) -> list[Caller]:
    callers = []
    for _ in range(count):
        callers.append(Caller(room, OpenCall(), clock))
        await settle()
    return callers


async def cancel_all(callers: list[Caller]) -> None:
    for caller in callers:
        caller.call.end()
        caller.task.cancel()
    await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)


async def test_calls_beyond_the_permits_wait_in_order(clock: FakeClock):
    room = bulkhead(clock)
    first, second, third = await enter(clock, room, 3)
    assert (room.in_use, room.waiting) == (1, 2)

    first.call.end()
    await settle()
    assert (second.call.is_running, third.call.is_running) == (True, False)

    second.call.end()
    await settle()
    assert third.call.is_running

    third.call.end()
    assert await third.task == "done"
    assert (room.in_use, room.waiting) == (0, 0)


async def test_a_call_that_had_to_wait_is_reported_with_its_wait(
    clock: FakeClock, listener: RecordingListener
):
    room = bulkhead(clock, listener)
    first, second = await enter(clock, room, 2)
    assert listener.events == []
    await clock.advance(3.0)
    first.call.end()
    await settle()
    assert listener.events == [Waited(policy="external", seconds=3.0)]
    await cancel_all([second])


async def test_a_call_beyond_the_queue_is_rejected_at_once(clock: FakeClock, listener: RecordingListener):
    room = bulkhead(clock, listener)
    callers = await enter(clock, room, 3)

    with pytest.raises(BulkheadFullError) as raised:
        await room.run(lambda: asyncio.sleep(0))

    assert listener.events == [Rejected(policy="external", retry_after=raised.value.retry_after)]
    assert (room.in_use, room.waiting) == (1, 2)
    await cancel_all(callers)


async def test_a_call_that_waits_too_long_is_rejected(clock: FakeClock, listener: RecordingListener):
    room = bulkhead(clock, listener)
    inside, waiting = await enter(clock, room, 2)

    await clock.advance(5.0)

    with pytest.raises(BulkheadFullError, match="longest wait"):
        await waiting.task
    assert (room.in_use, room.waiting) == (1, 0)
    assert len(listener.of(Rejected)) == 1
    await cancel_all([inside])


async def test_the_duration_of_a_call_is_not_limited(clock: FakeClock):
    room = bulkhead(clock)
    first, second = await enter(clock, room, 2)
    first.call.end()
    await settle()

    await clock.advance(60)

    assert second.call.is_running
    await cancel_all([second])


async def test_a_failed_call_gives_its_permit_back(clock: FakeClock):
    room = bulkhead(clock)

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await room.run(fail)

    assert room.in_use == 0


async def test_a_timeout_error_of_the_call_is_raised_unchanged(clock: FakeClock):
    room = bulkhead(clock)
    (first,) = await enter(clock, room, 1)

    async def fail() -> None:
        raise TimeoutError("its own")

    second = asyncio.create_task(room.run(fail))
    await settle()
    first.call.end()

    with pytest.raises(TimeoutError, match="its own"):
        await second


async def test_a_cancelled_call_gives_its_permit_to_the_next(clock: FakeClock):
    room = bulkhead(clock)
    inside, waiting = await enter(clock, room, 2)

    inside.task.cancel()
    await settle()

    assert waiting.call.is_running
    assert room.in_use == 1
    await cancel_all([waiting])
    assert room.in_use == 0


async def test_a_cancelled_wait_frees_its_place_in_the_queue(clock: FakeClock):
    room = bulkhead(clock)
    inside, leaver, waiting = await enter(clock, room, 3)

    leaver.task.cancel()
    await settle()
    assert room.waiting == 1
    inside.call.end()
    await settle()

    assert waiting.call.is_running
    await cancel_all([waiting])


@pytest.mark.parametrize("order", ["permit first", "cancellation first"])
async def test_a_permit_and_a_cancellation_in_one_tick_lose_no_permit(clock: FakeClock, order: str):
    room = bulkhead(clock)
    inside, unlucky, waiting = await enter(clock, room, 3)

    if order == "permit first":
        room.resize(2)
        unlucky.task.cancel()
    else:
        unlucky.task.cancel()
        room.resize(2)
    await settle()

    assert unlucky.task.cancelled()
    assert waiting.call.is_running
    assert (room.in_use, room.waiting) == (2, 0)
    await cancel_all([inside, waiting])
    assert room.in_use == 0


class TestResizing:
    async def test_more_permits_start_waiting_calls(self, clock: FakeClock):
        room = bulkhead(clock)
        callers = await enter(clock, room, 3)

        room.resize(3)
        await settle()

        assert all(caller.call.is_running for caller in callers)
        assert room.permits == 3
        await cancel_all(callers)

    async def test_fewer_permits_limit_only_later_calls(self, clock: FakeClock):
        room = bulkhead(clock, permits=3)
        first, second, third, fourth = await enter(clock, room, 4)

        room.resize(1)
        first.call.end()
        second.call.end()
        await settle()
        assert (third.call.is_running, fourth.call.is_running) == (True, False)

        third.call.end()
        await settle()
        assert fourth.call.is_running
        await cancel_all([fourth])

    def test_zero_permits_are_rejected(self, clock: FakeClock):
        with pytest.raises(ValueError, match="permits"):
            bulkhead(clock).resize(0)


async def test_retry_after_is_the_mean_time_until_a_permit_is_free(clock: FakeClock):
    room = bulkhead(clock, permits=4, max_waiting=0)
    for _ in range(200):
        await clock.drive(room.run(lambda: clock.sleep(8.0)))
    callers = await enter(clock, room, 4)

    with pytest.raises(BulkheadFullError) as raised:
        await room.run(lambda: clock.sleep(8.0))

    assert raised.value.retry_after == pytest.approx(2.0)
    await cancel_all(callers)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("permits", value) for value in (0, -1, math.nan)),
        *(("max_waiting", value) for value in (-1, math.nan)),
        *(("max_wait_seconds", value) for value in (0, -1, math.inf, math.nan)),
    ],
)
def test_an_error_names_the_invalid_option(option: str, value: float):
    with pytest.raises(ValueError, match=option):
        BulkheadOptions(**{option: value})
