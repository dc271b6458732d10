"""The tools of `standfast.testing`."""

import asyncio

import pytest

from src.resilience import (
    AdaptiveConcurrency,
    Bulkhead,
    BulkheadOptions,
    CallTimeoutError,
    Exponential,
    Fallback,
    Pipeline,
    Retry,
    RetryOptions,
    SystemClock,
    Timeout,
    always,
)
from src.resilience import testing as library
from src.resilience.clock import BlockingClock, SystemRandomizer
from src.resilience.events import CallFinished, Retried, TimedOut
from src.resilience.retry import IMMEDIATE
from src.resilience.testing import FakeClock, FakeRandomizer, RecordingListener, policies_off, quick_retries
from tests.unit.resilience.test_every_policy import POLICIES

HOURS = Exponential(base_seconds=3600, cap_seconds=36_000)


async def fail():
    raise ConnectionError


class FailingCall:
    def __init__(self):
        self.calls = 0

    async def __call__(self):
        self.calls += 1
        raise ConnectionError


# ---------------------------------------------------------------- the clock


async def test_the_clock_changes_only_when_it_is_moved():
    clock = FakeClock()
    woken = []
    tasks = [asyncio.create_task(sleep_and_record(clock, seconds, woken)) for seconds in (3, 1, 2)]

    await clock.advance(2)
    assert woken == [1, 2]
    assert clock.monotonic() == 2

    await clock.advance(5)
    assert woken == [1, 2, 3]
    assert clock.sleeps == [3, 1, 2]
    await asyncio.gather(*tasks)


async def sleep_and_record(clock, seconds, woken):
    await clock.sleep(seconds)
    woken.append(seconds)


async def test_drive_moves_time_from_timer_to_timer():
    clock = FakeClock()
    assert await clock.drive(Timeout(9, clock).run(lambda: asyncio.sleep(0, "answer"))) == "answer"
    assert clock.monotonic() == 0


async def test_a_timeout_that_has_ended_leaves_no_timer():
    clock = FakeClock()
    async with clock.timeout(5):
        pass
    with pytest.raises(RuntimeError, match="no timer of this clock"):
        await clock.drive(asyncio.Event().wait())


async def test_a_timeout_expires_by_the_fake_clock():
    clock, listener = FakeClock(), RecordingListener()
    with pytest.raises(CallTimeoutError):
        await clock.drive(Timeout(9, clock, listener=listener).run(asyncio.Event().wait))
    assert clock.monotonic() == 9
    assert [event.seconds for event in listener.of(TimedOut)] == [9]


async def test_a_shift_of_the_time_of_day_does_not_change_durations():
    clock = FakeClock(start=1000.0)
    clock.shift_time_of_day(-400)
    assert (clock.now(), clock.monotonic()) == (600.0, 0.0)
    clock.jump(1.5)
    assert (clock.now(), clock.monotonic()) == (601.5, 1.5)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
async def test_time_does_not_pass_backward(seconds):
    clock = FakeClock()
    with pytest.raises(ValueError, match="seconds must be at least 0"):
        clock.jump(seconds)
    with pytest.raises(ValueError, match="seconds must be at least 0"):
        await clock.advance(seconds)
    assert clock.monotonic() == 0


async def test_settle_ends_when_no_task_can_run():
    assert not asyncio.get_running_loop()._ready
    asyncio.get_running_loop().call_soon(int)
    assert asyncio.get_running_loop()._ready


def test_settle_works_on_another_event_loop():
    uvloop = pytest.importorskip("uvloop")
    clock = FakeClock()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(clock.drive(clock.sleep(60))) is None
    assert clock.monotonic() == 60


# ---------------------------------------------------------------- chance and events


def test_the_randomizer_returns_the_given_numbers():
    randomizer = FakeRandomizer([0.1, 0.9])
    assert [randomizer.random() for _ in range(3)] == [0.1, 0.9, 0.9]
    with pytest.raises(ValueError, match="draws"):
        FakeRandomizer([])


def test_a_listener_excludes_the_given_kinds_of_events():
    listener = RecordingListener(without=(TimedOut,))
    retried = Retried(policy="p", attempt=1, delay=0.0, error=OSError())
    listener(TimedOut(policy="p", seconds=1.0))
    listener(retried)
    assert listener.events == [retried]
    assert listener.of(TimedOut) == []


# ---------------------------------------------------------------- the off-switch


@pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)
async def test_a_policy_that_is_off_only_runs_its_call(make, clock):
    policy, call = make(clock), FailingCall()
    with policies_off():
        for _ in range(20):
            with pytest.raises(ConnectionError):
                await policy.run(call)
        with pytest.raises(TypeError, match="plain function"):
            await policy.run(function_without_lambda)
    assert call.calls == 20
    assert clock.monotonic() == 0
    assert clock.sleeps == []


def function_without_lambda():
    return 42


async def test_policies_off_applies_to_blocks_decorators_and_other_options(clock):
    bulkhead = Bulkhead(BulkheadOptions(permits=1), clock)
    retry = Retry(RetryOptions(3), clock, SystemRandomizer(), listener=RecordingListener())
    call = FailingCall()
    with policies_off():
        async with bulkhead, bulkhead:
            assert bulkhead.in_use == 0
        for way in (retry.with_options(attempts=9).run, lambda call: retry(call.__call__)()):
            with pytest.raises(ConnectionError):
                await way(call)
    assert call.calls == 2


async def test_policies_are_on_again_after_the_context():
    policy = Fallback(always("substitute"))
    with policies_off(), policies_off():
        pass
    assert await policy.run(fail) == "substitute"
    with pytest.raises(ZeroDivisionError), policies_off():
        raise ZeroDivisionError
    assert await policy.run(fail) == "substitute"


def test_every_policy_can_be_off():
    kinds = {type(make(FakeClock())) for make in POLICIES.values()} - {Pipeline}
    assert set(library._POLICIES) == kinds
    assert AdaptiveConcurrency in kinds


# ---------------------------------------------------------------- quick retries


@pytest.mark.parametrize(("cap", "options", "made"), [(1, 5, 1), (3, 5, 3), (3, 2, 2)])
async def test_quick_retries_are_few_and_do_not_wait(cap, options, made):
    call = FailingCall()
    retry = Retry(RetryOptions(options, total_seconds=1e6, backoff=HOURS), SystemClock(), SystemRandomizer())
    with quick_retries(cap), pytest.raises(ConnectionError):
        await retry.run(call)
    assert call.calls == made


async def test_quick_retries_apply_to_other_options_and_with_a_listener(clock):
    listener, call = RecordingListener(), FailingCall()
    retry = Retry(RetryOptions(2, 1e6, HOURS), clock, SystemRandomizer(), listener=listener)
    with quick_retries(4), pytest.raises(ConnectionError):
        await retry.with_options(attempts=9).run(call)
    assert call.calls == 4
    assert [event.delay for event in listener.of(Retried)] == [3600, 7200, 14_400]
    assert len(listener.of(CallFinished)) == 1


def test_quick_retries_need_no_event_loop():
    def fail():
        calls.append(None)
        raise ConnectionError

    calls = []
    retry = Retry(RetryOptions(9, 1e6, HOURS), BlockingClock(), SystemRandomizer())
    with quick_retries(3), pytest.raises(ConnectionError):
        retry.run_sync(fail)
    assert len(calls) == 3


async def test_retries_are_normal_again_after_the_context(clock):
    retry, call = Retry(RetryOptions(3, backoff=IMMEDIATE), clock, SystemRandomizer()), FailingCall()
    with quick_retries():
        pass
    with pytest.raises(ConnectionError):
        await retry.run(call)
    assert call.calls == 3


def test_zero_attempts_are_rejected():
    with pytest.raises(ValueError, match="attempts"), quick_retries(0):
        pass


# ---------------------------------------------------------------- the fixtures


def test_the_fixtures_work_in_a_suite_of_another_project(tmp_path):
    import subprocess
    import sys

    (tmp_path / "conftest.py").write_text('pytest_plugins = ["src.resilience.pytest_plugin"]\n')
    (tmp_path / "test_shop.py").write_text(SUITE)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


SUITE = """
import asyncio

import pytest

from src.resilience import Bulkhead, BulkheadFullError, BulkheadOptions, Retry, RetryOptions, SystemClock
from src.resilience.clock import SystemRandomizer

CALLS = []


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


async def fail():
    CALLS.append(None)
    raise ConnectionError


RETRY = Retry(RetryOptions(attempts=4), SystemClock(), SystemRandomizer())


def test_off(policies_off):
    with pytest.raises(ConnectionError):
        asyncio.run(RETRY.run(fail))
    assert len(CALLS) == 1


def test_quick(quick_retries):
    with pytest.raises(ConnectionError):
        asyncio.run(RETRY.run(fail))
    assert len(CALLS) == 1


def test_time(fake_clock, recording_listener):
    retry = Retry(RetryOptions(attempts=4), fake_clock, SystemRandomizer(7), listener=recording_listener)
    with pytest.raises(ConnectionError):
        asyncio.run(fake_clock.drive(retry.run(fail)))
    assert len(CALLS) == 4
    assert fake_clock.monotonic() > 0
    assert recording_listener.events


def test_neither(fake_clock):
    assert fake_clock.monotonic() == 0
"""
