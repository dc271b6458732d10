"""Adaptive concurrency against a simulated service of a known capacity."""

import asyncio
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.resilience.adaptive_concurrency import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Aimd,
    Gradient,
    LimitAlgorithm,
)
from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.clock import SystemRandomizer
from tests.support.clock import FakeClock
from tests.support.examples import examples

MAX_LIMIT = 40
CALLS = 1000
"""Enough for the slowest climb there is here, from 1 to past the highest capacity, and a while to stay."""


class Service:
    """A service that runs `capacity` calls at once, in about `seconds` each. More calls take longer."""

    def __init__(self, clock: FakeClock, capacity: int, seed: int) -> None:
        self.capacity = capacity
        self.seconds = 1.0
        self._clock = clock
        self._randomizer = SystemRandomizer(seed)
        self._under_way = 0

    async def __call__(self) -> None:
        self._under_way += 1
        try:
            crowding = max(1.0, self._under_way / self.capacity)
            luck = 0.9 + 0.2 * self._randomizer.random()
            await self._clock.sleep(self.seconds * crowding * luck)
        finally:
            self._under_way -= 1


def adaptive(clock: FakeClock, algorithm: LimitAlgorithm, limit: int, **options: int) -> AdaptiveConcurrency:
    room = Bulkhead(BulkheadOptions(permits=limit, max_waiting=1000, max_wait_seconds=1e9), clock)
    bounds = AdaptiveConcurrencyOptions(**{"max_limit": MAX_LIMIT, **options})
    return AdaptiveConcurrency(bounds, algorithm, room, clock)


async def limits_under_load(policy: AdaptiveConcurrency, service: Service, clock: FakeClock) -> list[int]:
    """Return the limit after each call, with more callers than the capacity of the service."""
    limits: list[int] = []

    async def caller() -> None:
        while len(limits) < CALLS:
            await policy.run(service)
            limits.append(policy.limit)

    await clock.drive(asyncio.gather(*(caller() for _ in range(MAX_LIMIT))))
    return limits


def settled(limits: list[int]) -> float:
    """Return the median of the last limits, since both algorithms oscillate around a limit."""
    return statistics.median(limits[-CALLS // 3 :])


CAPACITIES = st.integers(2, 16)
SEEDS = st.integers(0, 2**32)


@settings(deadline=None, max_examples=examples(8))
@given(capacity=CAPACITIES, start=st.integers(1, MAX_LIMIT), seed=SEEDS)
async def test_aimd_settles_where_calls_take_as_long_as_they_may(capacity: int, start: int, seed: int):
    clock = FakeClock()
    service = Service(clock, capacity, seed)
    policy = adaptive(clock, Aimd(target_seconds=1.5), start)

    limit = settled(await limits_under_load(policy, service, clock))

    assert 0.7 * capacity <= limit <= 1.5 * capacity + 1


@settings(deadline=None, max_examples=examples(8))
@given(capacity=CAPACITIES, start=st.integers(1, MAX_LIMIT), seed=SEEDS)
async def test_gradient_settles_above_the_capacity_by_tolerance_and_queue(
    capacity: int, start: int, seed: int
):
    clock = FakeClock()
    service = Service(clock, capacity, seed)
    policy = adaptive(clock, Gradient(tolerance=0.25, probe_every_rounds=20), start)

    limit = settled(await limits_under_load(policy, service, clock))

    # The fixed point of limit = busy + sqrt(busy), where busy = limit * (1.25 * capacity / limit).
    expected = 1.25 * capacity + (1.25 * capacity) ** 0.5
    assert capacity <= limit <= 1.3 * expected + 1


@pytest.mark.parametrize("make", [lambda: Aimd(1.5), lambda: Gradient(probe_every_rounds=5)])
@settings(deadline=None, max_examples=examples(4))
@given(capacity=st.integers(8, 16), seed=SEEDS)
async def test_the_limit_follows_the_capacity_of_the_service(make, capacity: int, seed: int):
    clock = FakeClock()
    service = Service(clock, capacity, seed)
    policy = adaptive(clock, make(), 1)
    healthy = settled(await limits_under_load(policy, service, clock))

    service.capacity = capacity // 4
    ailing = settled(await limits_under_load(policy, service, clock))
    service.capacity = capacity
    recovered = settled(await limits_under_load(policy, service, clock))

    assert ailing < 0.6 * healthy
    assert recovered == pytest.approx(healthy, rel=0.3)


@settings(deadline=None, max_examples=examples(4))
@given(capacity=st.integers(4, 16), seed=SEEDS)
async def test_aimd_stays_at_its_minimum_while_even_one_call_is_too_slow(capacity: int, seed: int):
    clock = FakeClock()
    service = Service(clock, capacity, seed)
    policy = adaptive(clock, Aimd(target_seconds=1.5), MAX_LIMIT)

    service.seconds = 8.0
    limits = await limits_under_load(policy, service, clock)
    service.seconds = 1.0
    recovered = settled(await limits_under_load(policy, service, clock))

    assert settled(limits) == 1
    assert 0.7 * capacity <= recovered <= 1.5 * capacity + 1
