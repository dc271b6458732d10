"""The timeout policy."""

import asyncio
import math

import pytest

from src.resilience.errors import CallTimeoutError
from src.resilience.events import TimedOut
from src.resilience.timeout import Timeout
from tests.support.clock import FakeClock
from tests.support.listener import RecordingListener


@pytest.fixture
def timeout(clock: FakeClock, listener: RecordingListener) -> Timeout:
    return Timeout(5.0, clock, name="attempt", listener=listener)


async def test_a_call_within_its_time_returns(
    timeout: Timeout, clock: FakeClock, listener: RecordingListener
):
    async def call() -> str:
        await clock.sleep(4.9)
        return "done"

    assert await clock.drive(timeout.run(call)) == "done"
    assert listener.events == []


async def test_a_call_over_its_time_is_stopped(
    timeout: Timeout, clock: FakeClock, listener: RecordingListener
):
    stopped = False

    async def call() -> None:
        nonlocal stopped
        try:
            await clock.sleep(60)
        except asyncio.CancelledError:
            stopped = True
            raise

    with pytest.raises(CallTimeoutError) as raised:
        await clock.drive(timeout.run(call))

    assert stopped
    assert raised.value.seconds == 5.0
    assert clock.monotonic() == 5.0
    assert listener.events == [TimedOut(policy="attempt", seconds=5.0)]


async def test_a_timeout_error_of_the_call_itself_is_raised_unchanged(
    timeout: Timeout, listener: RecordingListener
):
    own_error = TimeoutError("its own")

    async def call() -> None:
        raise own_error

    with pytest.raises(TimeoutError) as raised:
        await timeout.run(call)

    assert raised.value is own_error
    assert listener.events == []


async def test_a_cancellation_from_outside_is_raised(
    timeout: Timeout, clock: FakeClock, listener: RecordingListener
):
    caller = asyncio.create_task(timeout.run(lambda: clock.sleep(60)))
    await clock.advance(1)

    caller.cancel()
    await clock.advance(60)

    assert caller.cancelled()
    assert listener.events == []


async def test_the_outer_of_two_timeouts_raises_the_error_of_the_inner_one(
    timeout: Timeout, clock: FakeClock
):
    inner = Timeout(1.0, clock)

    with pytest.raises(CallTimeoutError) as raised:
        await clock.drive(timeout.run(lambda: inner.run(lambda: clock.sleep(60))))

    assert raised.value.seconds == 1.0


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_invalid_limits_are_rejected(clock: FakeClock, seconds: float):
    with pytest.raises(ValueError, match="seconds"):
        Timeout(seconds, clock)
