"""Quotas, the forgotten keys of the limiters in memory, and the policy that waits for its units."""

import asyncio
import math

import pytest

from src.resilience.errors import RateLimitedError
from src.resilience.events import Rejected, Waited
from src.resilience.rate_limiter.memory import (
    LeakyBucket,
    SlidingWindowCounter,
    SlidingWindowLog,
    TokenBucket,
    memory_rate_limiter,
)
from src.resilience.rate_limiter.options import Quota, RateLimitOptions
from src.resilience.rate_limiter.policy import RateLimit
from tests.support.clock import settle


@pytest.mark.parametrize("limit", [0, -1, 2.5, math.nan, math.inf, 1_000_001])
def test_a_quota_rejects_an_invalid_limit(limit):
    with pytest.raises(ValueError, match="limit must be"):
        Quota(limit, 1)


@pytest.mark.parametrize("window", [0, -1, math.nan, math.inf])
def test_a_quota_rejects_an_invalid_window(window):
    with pytest.raises(ValueError, match="window_seconds must be"):
        Quota(1, window)


def test_a_window_may_be_a_fraction_of_a_second():
    assert Quota(3, 0.25).window_us == 250_000


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("algorithm", [SlidingWindowLog, SlidingWindowCounter, TokenBucket, LeakyBucket])
async def test_hits_of_other_keys_remove_idle_keys(algorithm, clock):
    limiter = algorithm(Quota(5, 10), clock)
    for number in range(1000):
        await limiter.hit(f"visitor-{number}")
    clock.jump(20)
    for _ in range(500):
        await limiter.hit("regular")
        clock.jump(10)
    assert len(limiter._states) == 1


async def test_one_hit_removes_at_most_two_idle_keys(clock):
    limiter = SlidingWindowLog(Quota(5, 10), clock)
    for number in range(1000):
        await limiter.hit(f"visitor-{number}")
    clock.jump(10)
    await limiter.hit("regular")
    assert len(limiter._states) == 999


async def test_an_old_key_in_use_is_kept(clock):
    limiter = SlidingWindowLog(Quota(3, 10), clock)
    for _ in range(20):
        await limiter.hit("old")
        clock.jump(4)
        await limiter.hit("new")
    assert (await limiter.peek("old")).remaining == 1


async def test_a_peek_or_a_refusal_stores_no_state(clock):
    limiter = TokenBucket(Quota(3, 10), clock)
    await limiter.peek("stranger")
    assert len(limiter._states) == 0


# ---------------------------------------------------------------- the policy


def rate_limit(clock, limiter=None, *, name="rate-limiter", listener=lambda event: None, **options):
    """Return a policy with one call per second, without bursts."""
    limiter = limiter or memory_rate_limiter("token_bucket", Quota(1, 1), clock)
    return RateLimit(limiter, RateLimitOptions("service", **options), clock, name=name, listener=listener)


async def answer():
    return "answer"


class UnavailableError(Exception):
    """The limiter's store is unavailable."""


class UnavailableLimiter:
    quotas = (Quota(1, 1),)

    def try_hit(self, key, cost=1):
        return False

    async def hit(self, key, cost=1):
        raise UnavailableError


@pytest.mark.parametrize("wait", [-0.1, math.nan, math.inf])
def test_an_invalid_wait_is_rejected(wait):
    with pytest.raises(ValueError, match="max_wait_seconds"):
        RateLimitOptions("service", max_wait_seconds=wait)


async def test_a_call_within_the_quota_runs_at_once(clock):
    assert await rate_limit(clock).run(answer) == "answer"
    assert clock.sleeps == []


async def test_an_error_of_the_call_is_raised(clock):
    async def failing():
        raise LookupError

    with pytest.raises(LookupError):
        await rate_limit(clock).run(failing)


async def test_a_call_beyond_the_quota_waits_until_its_unit_is_free(clock):
    policy = rate_limit(clock)
    await policy.run(answer)
    clock.jump(0.25)
    assert await clock.drive(policy.run(answer)) == "answer"
    assert clock.monotonic() == 1.0


async def test_a_call_that_would_wait_too_long_is_rejected_with_retry_after(clock, listener):
    policy = rate_limit(clock, max_wait_seconds=0.5, name="external-service", listener=listener)
    await policy.run(answer)
    clock.jump(0.25)
    with pytest.raises(RateLimitedError) as refused:
        await policy.run(answer)
    assert refused.value.policy == "external-service"
    assert refused.value.retry_after == 0.75
    assert listener.events == [Rejected(policy="external-service", retry_after=0.75)]
    clock.jump(0.75)
    assert await policy.run(answer) == "answer"


async def test_a_call_that_had_to_wait_is_reported_with_its_wait(clock, listener):
    policy = rate_limit(clock, max_wait_seconds=5, name="external-service", listener=listener)
    await policy.run(answer)
    assert listener.events == []
    waiting = [asyncio.ensure_future(policy.run(answer)) for _ in range(2)]
    await clock.drive(asyncio.gather(*waiting))
    assert listener.events == [
        Waited(policy="external-service", seconds=1.0),
        Waited(policy="external-service", seconds=2.0),
    ]


async def test_with_a_wait_of_zero_a_call_runs_at_once_or_is_rejected(clock):
    policy = rate_limit(clock, max_wait_seconds=0)
    await policy.run(answer)
    with pytest.raises(RateLimitedError):
        await policy.run(answer)
    assert clock.sleeps == []


async def test_calls_start_in_order_of_arrival_one_interval_apart(clock):
    policy = rate_limit(clock, max_wait_seconds=10)
    begun = []

    async def note(number):
        begun.append((number, clock.monotonic()))

    def call(number):
        return policy.run(lambda: note(number))

    await clock.drive(asyncio.gather(*(call(number) for number in range(5))))
    assert begun == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket", "sliding_window_log", "fixed_window"])
async def test_a_call_whose_unit_cannot_come_in_time_is_rejected_on_arrival(clock, algorithm):
    policy = rate_limit(clock, memory_rate_limiter(algorithm, Quota(1, 1), clock), max_wait_seconds=2.5)
    calls = [asyncio.create_task(policy.run(answer)) for _ in range(6)]
    await settle()

    refused = [call for call in calls if call.done()][1:]
    assert [call.exception().retry_after for call in refused] == [3.0] * 3
    assert calls[3:] == refused

    assert await clock.drive(asyncio.gather(*calls[:3])) == ["answer"] * 3
    assert clock.monotonic() == 2.0
    clock.jump(1)
    assert await policy.run(answer) == "answer", "the call runs after its retry_after"


async def test_a_wait_of_several_windows_is_calculated(clock):
    policy = rate_limit(clock, memory_rate_limiter("fixed_window", Quota(2, 10), clock), max_wait_seconds=20)
    calls = [asyncio.create_task(policy.run(answer)) for _ in range(7)]
    await settle()
    assert [call.done() for call in calls] == [True, True, False, False, False, False, True]
    assert calls[-1].exception().retry_after == 30
    assert await clock.drive(asyncio.gather(*calls[:6])) == ["answer"] * 6
    assert clock.monotonic() == 20


async def test_the_number_of_waiting_calls_is_limited(clock, listener):
    policy = rate_limit(clock, max_wait_seconds=60, max_waiting=2, listener=listener)
    calls = [asyncio.create_task(policy.run(answer)) for _ in range(6)]
    await settle()
    assert [call.done() for call in calls] == [True, False, False, True, True, True]
    assert [call.exception().retry_after for call in calls[3:]] == [3.0] * 3
    assert listener.events == [Rejected(policy="rate-limiter", retry_after=3.0)] * 3
    await clock.drive(asyncio.gather(*calls[:3]))


@pytest.mark.parametrize("max_waiting", [0, -1, math.nan])
def test_an_invalid_queue_length_is_rejected(max_waiting):
    with pytest.raises(ValueError, match="max_waiting"):
        RateLimitOptions("service", max_waiting=max_waiting)


class SlowLimiter:
    """A limiter that decides in a later iteration of the event loop, like a limiter with a store."""

    def __init__(self, limiter):
        self._limiter = limiter
        self.algorithm = limiter.algorithm
        self.quotas = limiter.quotas

    def try_hit(self, key, cost=1):
        return False

    async def hit(self, key, cost=1):
        decision = await self._limiter.hit(key, cost)
        await asyncio.sleep(0)
        return decision

    async def peek(self, key, cost=1):
        decision = await self._limiter.peek(key, cost)
        await asyncio.sleep(0)
        return decision


async def test_a_burst_within_the_quota_runs_with_a_slow_limiter(clock):
    limiter = SlowLimiter(memory_rate_limiter("sliding_window_log", Quota(10, 60), clock))
    policy = rate_limit(clock, limiter, max_wait_seconds=0)
    outcomes = await asyncio.gather(*(policy.run(answer) for _ in range(11)), return_exceptions=True)
    assert outcomes[:10] == ["answer"] * 10
    assert isinstance(outcomes[10], RateLimitedError)


async def test_a_call_that_arrives_while_another_waits_does_not_overtake_it_without_the_store(clock):
    limiter = memory_rate_limiter("token_bucket", Quota(2, 2), clock)
    policy = rate_limit(clock, limiter, max_wait_seconds=10)
    started = []

    def call(number, cost=1):
        async def start():
            started.append(number)

        return asyncio.create_task(policy.with_options(cost=cost).run(start))

    first, dear = call("first"), call("dear", cost=2)  # one unit is left, and two are needed
    cheap = call("cheap")  # the limiter would allow it now
    await settle()
    assert started == ["first"]
    await clock.drive(asyncio.gather(first, dear, cheap))
    assert started == ["first", "dear", "cheap"]


async def test_a_call_cancelled_while_it_waits_takes_no_units(clock):
    policy = rate_limit(clock, max_wait_seconds=10)
    await policy.run(answer)
    first, second, third = (asyncio.create_task(policy.run(answer)) for _ in range(3))
    await clock.advance(0.5)
    first.cancel()  # waiting at the front of the queue
    second.cancel()  # behind it
    await settle()
    assert first.cancelled()
    assert second.cancelled()
    assert await clock.drive(third) == "answer"
    assert clock.monotonic() == 1.0


async def test_a_slow_call_does_not_delay_others(clock):
    policy = rate_limit(clock, memory_rate_limiter("token_bucket", Quota(2, 1), clock))
    slow = asyncio.create_task(policy.run(asyncio.Event().wait))
    await settle()
    assert await policy.run(answer) == "answer"
    slow.cancel()


async def test_an_error_of_the_limiter_is_raised_and_the_next_call_continues(clock):
    policy = rate_limit(clock, UnavailableLimiter())
    outcomes = await asyncio.gather(*(policy.run(answer) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3


async def test_with_the_sliding_window_counter_calls_wait_only_if_units_come_in_time(clock):
    limiter = memory_rate_limiter("sliding_window_counter", Quota(10, 10), clock)
    policy = rate_limit(clock, limiter, max_wait_seconds=6.5)
    await limiter.hit("service", 10)
    clock.jump(15)
    await limiter.hit("service", 5)

    calls = [asyncio.create_task(policy.run(answer)) for _ in range(7)]
    await settle()

    assert [call.done() for call in calls] == [False] * 6 + [True]
    assert calls[6].exception().retry_after == pytest.approx(5 + 10 * 2 / 9)
    assert await clock.drive(asyncio.gather(*calls[:6])) == ["answer"] * 6
    assert clock.monotonic() == pytest.approx(15 + 5 + 10 * 1 / 9)
