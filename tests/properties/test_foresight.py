"""Foresight of a quota against a simple model that takes each unit as soon as it is free."""

import asyncio
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.resilience.rate_limiter.foresight import seconds_until
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Algorithm, Quota
from tests.support.clock import FakeClock

KEY = "all"
WINDOW_SECONDS = 8.0

steps = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0, 3.7, 8.0, 9.3]), st.integers(1, 5)), max_size=12)


async def seconds_until_taken(limiter, clock, units):
    began = clock.monotonic()
    for _ in range(units):
        while not (decision := await limiter.hit(KEY)).allowed:
            clock.jump(decision.retry_after)
    return clock.monotonic() - began


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
@given(
    limit=st.sampled_from([1, 2, 3, 4, 10]),
    steps=steps,
    last=st.sampled_from([0.0, 0.1, 5.0]),
    units=st.integers(1, 45),
)
def test_foresight_of_the_last_unit_is_exact(algorithm, limit, steps, last, units):
    async def compare():
        clock = FakeClock()
        limiter = memory_rate_limiter(algorithm, Quota(limit, WINDOW_SECONDS), clock)
        for seconds, cost in steps:
            clock.jump(seconds)
            await limiter.hit(KEY, min(cost, limit))
        clock.jump(last)
        return await seconds_until(limiter, KEY, units), await seconds_until_taken(limiter, clock, units)

    foreseen, taken = asyncio.run(compare())
    assert foreseen == pytest.approx(taken, abs=1e-4)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
@given(
    quotas=st.lists(
        st.builds(Quota, st.sampled_from([1, 2, 3, 10]), st.sampled_from([2.0, WINDOW_SECONDS, 20.0])),
        min_size=2,
        max_size=3,
    ),
    steps=steps,
    units=st.integers(1, 15),
)
def test_foresight_of_several_quotas_is_never_late_and_exact_for_buckets(algorithm, quotas, steps, units):
    async def compare():
        clock = FakeClock()
        limiter = memory_rate_limiter(algorithm, quotas, clock)
        for seconds, cost in steps:
            clock.jump(seconds)
            await limiter.hit(KEY, min(cost, *(quota.limit for quota in quotas)))
        return await seconds_until(limiter, KEY, units), await seconds_until_taken(limiter, clock, units)

    foreseen, taken = asyncio.run(compare())
    assert foreseen <= taken + 1e-4
    if algorithm in {"token_bucket", "leaky_bucket"}:
        assert foreseen == pytest.approx(taken, abs=1e-4)
