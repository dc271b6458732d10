"""What the rate limiters promise, on arrivals made to break them."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.resilience.memory_rate_limiter import memory_rate_limiter
from src.resilience.rate_limiter import Algorithm, Quota
from src.storage.limiter_store import redis_rate_limiter
from tests.contract.conftest import TEST_TIME, StoreTime
from tests.support.clock import FakeClock

US = 1e-6

every_algorithm = pytest.mark.parametrize("algorithm", get_args(Algorithm))


@st.composite
def arrivals(draw, max_size=60, windows_us=(8, 1000, 999_983, 60_000_000)):
    """A quota, and hits of (µs since the one before, cost) that crowd around the edges of windows."""
    window = draw(st.sampled_from(windows_us))
    limit = draw(st.integers(1, 8))
    edges = st.sampled_from([0, 1, window // limit, window // 2, window - 1, window, window + 1, 2 * window])
    gaps = edges | st.integers(0, window // limit + 1) | st.integers(0, window)
    costs = st.just(1) | st.integers(1, limit)
    hits = draw(st.lists(st.tuples(gaps, costs), min_size=1, max_size=max_size))
    return Quota(limit, window * US), hits


async def play(algorithm, quota, hits):
    """Return the µs at which each unit was let through."""
    clock = FakeClock()
    limiter = memory_rate_limiter(algorithm, quota, clock)
    now, admitted = 0, []
    for gap, cost in hits:
        now += gap
        clock.jump(gap * US)
        if (await limiter.hit("k", cost)).allowed:
            admitted += [now] * cost
    return admitted


def most_in_a_window(admitted, window_us):
    return max((sum(start <= t < start + window_us for t in admitted) for start in admitted), default=0)


@settings(deadline=None, max_examples=300)
@given(arrivals())
async def test_log_decides_as_a_plain_count_of_the_last_window_does(arrivals):
    quota, hits = arrivals
    now, model = 0, []
    for gap, cost in hits:
        now += gap
        if sum(t > now - quota.window_us for t in model) + cost <= quota.limit:
            model += [now] * cost
    admitted = await play("sliding_window_log", quota, hits)
    assert admitted == model
    assert most_in_a_window(admitted, quota.window_us) <= quota.limit


BOUNDS = {
    "sliding_window_counter": lambda limit: max(1, 2 * limit - 2),
    "fixed_window": lambda limit: 2 * limit - 1,
    "token_bucket": lambda limit: 2 * limit - 1,
    "leaky_bucket": lambda limit: 2 * limit - 1,
}


@pytest.mark.parametrize("algorithm", BOUNDS)
@settings(deadline=None, max_examples=200)
@given(arrivals=arrivals())
async def test_the_others_keep_their_stated_bounds(algorithm, arrivals):
    quota, hits = arrivals
    admitted = await play(algorithm, quota, hits)
    assert most_in_a_window(admitted, quota.window_us) <= BOUNDS[algorithm](quota.limit)


@pytest.mark.parametrize(
    ("algorithm", "gaps", "worst"),
    [
        # One hit to begin the window, the rest at its very end, then as fast as it lets through.
        ("fixed_window", [0, 59_999_999, 0, 0, 0, 1] + [0] * 4, 9),
        ("sliding_window_counter", [0, 59_999_999, 0, 0, 0] + [1_000_000] * 60, 8),
        ("token_bucket", [0] * 5 + [12_000_000] * 5, 9),
    ],
)
async def test_the_stated_bounds_are_reached(algorithm, gaps, worst):
    admitted = await play(algorithm, Quota(5, 60), [(gap, 1) for gap in gaps])
    assert most_in_a_window(admitted, 60_000_000) == worst


@settings(deadline=None, max_examples=200)
@given(arrivals())
async def test_a_bucket_lets_its_limit_and_its_refill_through_in_any_span(arrivals):
    quota, hits = arrivals
    admitted = await play("token_bucket", quota, hits)
    interval = -(-quota.window_us // quota.limit)
    for first, start in enumerate(admitted):
        for count, end in enumerate(admitted[first:], 1):
            assert count <= quota.limit + (end - start) // interval


@settings(deadline=None, max_examples=200)
@given(arrivals())
async def test_the_leaky_bucket_is_the_token_bucket_seen_from_its_empty_half(arrivals):
    quota, hits = arrivals
    assert await play("leaky_bucket", quota, hits) == await play("token_bucket", quota, hits)


@every_algorithm
@settings(deadline=None, max_examples=150)
@given(arrivals=arrivals(max_size=25), cost=st.integers(1, 8))
async def test_retry_after_and_reset_after_are_right_to_the_microsecond(algorithm, arrivals, cost):
    quota, hits = arrivals
    cost = min(cost, quota.limit)

    async def limiter_after_the_hits():
        clock = FakeClock()
        limiter = memory_rate_limiter(algorithm, quota, clock)
        for gap, hit_cost in hits:
            clock.jump(gap * US)
            await limiter.hit("k", hit_cost)
        return clock, limiter

    clock, limiter = await limiter_after_the_hits()
    before = await limiter.peek("k", cost)
    if not before.allowed:
        clock.jump(before.retry_after - US)
        assert not (await limiter.peek("k", cost)).allowed
        clock.jump(US)
        assert (await limiter.hit("k", cost)).allowed

    clock, limiter = await limiter_after_the_hits()
    if before.reset_after:
        clock.jump(before.reset_after - US)
        assert (await limiter.peek("k")).remaining < quota.limit
        clock.jump(US)
    assert (await limiter.peek("k")).remaining == quota.limit


@every_algorithm
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example begins with a reset
)
# Keys expire on the server's own clock, so a window must outlast the example.
@given(arrivals=arrivals(max_size=25, windows_us=(60_000_000, 59_999_983)))
async def test_redis_decides_as_memory_does(redis_link, algorithm, arrivals):
    quota, hits = arrivals
    clock = FakeClock()
    time = StoreTime(clock, redis_link)
    in_memory = memory_rate_limiter(algorithm, quota, clock)
    in_redis = redis_rate_limiter(algorithm, quota, redis_link, clock, time_source=TEST_TIME)
    await in_redis.reset("k")
    for gap, cost in hits:
        await time.advance(gap * US)
        assert await in_redis.hit("k", cost) == await in_memory.hit("k", cost)
        assert await in_redis.peek("k") == await in_memory.peek("k")


@every_algorithm
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example begins with a reset
)
@given(arrivals=arrivals(max_size=40, windows_us=(60_000_000, 59_999_983)))
async def test_redis_decides_as_memory_does_where_refusals_are_repeated_here(redis_link, algorithm, arrivals):
    quota, hits = arrivals
    clock = FakeClock()
    time = StoreTime(clock, redis_link)
    in_memory = memory_rate_limiter(algorithm, quota, clock)
    in_redis = redis_rate_limiter(algorithm, quota, redis_link, clock, time_source=TEST_TIME)
    await in_redis.reset("k")
    for gap, cost in hits:
        await time.advance(gap * US)
        ours, theirs = await in_redis.hit("k", cost), await in_memory.hit("k", cost)
        assert replace(ours, remaining=theirs.remaining) == theirs
        assert ours.remaining == theirs.remaining or (not ours.allowed and ours.remaining < theirs.remaining)
