"""What other projects and papers publish of the same patterns, held against ours."""

import math

import pytest

from src.resilience.adaptive_concurrency import Gradient, Round
from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.policy import ReadThroughCache
from src.resilience.cache.store import Entry
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.resilience.clock import SystemRandomizer
from src.resilience.retry import Exponential, FullJitter
from tests.contract.conftest import TEST_TIME

DRAWS = 20_000


@pytest.fixture
def breaker(store_time):
    """Makes a breaker of the backend under test, judged by its window alone."""

    def make(**options):
        link = store_time.link
        store = (
            MemoryBreakerStore(store_time.clock)
            if link is None
            else RedisBreakerStore(link, time_source=TEST_TIME)
        )
        judged_by_window = CircuitBreakerOptions(**options)  # a rate alone, and no failures in a row
        return CircuitBreaker("published", store, judged_by_window, store_time.clock)

    return make


async def call(breaker, *, fails):
    async def answer():
        if fails:
            raise ConnectionError

    if fails:
        with pytest.raises(ConnectionError):
            await breaker.run(answer)
    else:
        await breaker.run(answer)


async def state(breaker):
    return (await breaker.status()).state


class TestResilience4jCountWindow:
    """resilience4j's documentation of the CircuitBreaker: a circular array of the last N outcomes."""

    async def test_nine_failures_of_ten_needed_do_not_open_it_the_tenth_does(self, breaker):
        """The example given with `minimumNumberOfCalls`."""
        ring = breaker(failure_rate_threshold=0.5, window_calls=10, minimum_calls=10)
        for _ in range(9):
            await call(ring, fails=True)
        assert await state(ring) == "CLOSED"
        await call(ring, fails=True)
        assert await state(ring) == "OPEN"

    async def test_the_newest_outcome_takes_the_place_of_the_oldest(self, breaker):
        ring = breaker(failure_rate_threshold=0.5, window_calls=4, minimum_calls=4)
        for fails in (True, False, False, False):  # 25 %
            await call(ring, fails=fails)
        await call(ring, fails=True)  # evicts the first failure: 25 % still
        assert (await ring.status()).failure_rate == 0.25
        assert await state(ring) == "CLOSED"
        await call(ring, fails=True)  # evicts a success: 50 %, which reaches the threshold
        assert await state(ring) == "OPEN"


class TestResilience4jChecksSuccessesToo:
    """resilience4j looks at its rates after a success as after an error (`onSuccess` of its closed state).

    Polly does so after a failure only. The pattern's page says which of the two ours does.
    """

    async def test_a_success_that_fills_the_window_opens_it(self, breaker):
        ring = breaker(failure_rate_threshold=0.5, window_calls=8, minimum_calls=8)
        for number in range(7):
            await call(ring, fails=number % 2 == 0)
        assert await state(ring) == "CLOSED"
        await call(ring, fails=False)
        assert await state(ring) == "OPEN"


class TestPollyRollingWindow:
    """Polly's documentation of the circuit breaker, its example: ratio 0.5, throughput 8, 10 s, 30 s open."""

    OPTIONS = (0.5, 8, 10.0, 30.0)

    @pytest.fixture
    def rolling(self, breaker):
        ratio, throughput, sampling, broken = self.OPTIONS
        return breaker(
            failure_rate_threshold=ratio,
            minimum_calls=throughput,
            window_seconds=sampling,
            open_seconds=broken,
        )

    async def test_half_of_eight_within_ten_seconds_break_it(self, rolling):
        for number in range(7):
            await call(rolling, fails=number % 2 == 1)
        assert await state(rolling) == "CLOSED"  # seven are below the minimum throughput
        await call(rolling, fails=True)
        assert await state(rolling) == "OPEN"

    async def test_what_was_longer_ago_counts_no_more(self, rolling, store_time):
        for _ in range(7):
            await call(rolling, fails=True)
        await store_time.advance(11)
        for _ in range(7):
            await call(rolling, fails=False)
        await call(rolling, fails=True)  # one of eight
        assert await state(rolling) == "CLOSED"

    async def test_it_stays_broken_for_thirty_seconds(self, rolling, store_time):
        for _ in range(8):
            await call(rolling, fails=True)
        await store_time.advance(29.9)
        assert await state(rolling) == "OPEN"
        await store_time.advance(0.1)
        assert await state(rolling) == "HALF_OPEN"


@pytest.mark.parametrize(
    ("limit", "latency", "expected"),
    [
        (100, 1.25, 110),  # gradient 1: √100 of headroom
        (100, 2.5, 57),  # gradient 0.5: 50 + √50
        (100, 25.0, 57),  # no steeper than 0.5
        (100, 0.5, 214),  # no steeper than 2: 200 + √200
        (4, 25.0, 3),
        (3, 25.0, 2),
        (2, 25.0, 2),
    ],
)
def test_envoys_gradient_controller_adds_the_root_of_the_new_limit(limit, latency, expected):
    """`GradientController::calculateNewLimit`: new = limit · gradient + √(limit · gradient), buffer 25 %."""
    gradient = Gradient(tolerance=0.25)
    gradient.next_limit(limit, Round([1.0]))  # begins to measure
    assert gradient.next_limit(1, Round([1.0])) == limit
    assert int(gradient.next_limit(limit, Round([latency], was_full=True))) == expected


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 0.1), (2, 0.2), (5, 1.6), (20, 5.0)])
def test_full_jitter_waits_half_the_exponential_on_average(attempt, ceiling):
    """AWS Architecture Blog, "Exponential Backoff And Jitter": between 0 and min(cap, base · 2ⁿ)."""
    backoff, randomizer = FullJitter(Exponential(0.1, 5.0)), SystemRandomizer(seed=1)
    waits = [backoff.delay(attempt, 0, randomizer) for _ in range(DRAWS)]
    assert 0 <= min(waits) <= max(waits) <= ceiling
    assert sum(waits) / DRAWS == pytest.approx(ceiling / 2, rel=0.02)


@pytest.mark.parametrize(("beta", "remaining"), [(1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (0.5, 1.0)])
def test_xfetch_refreshes_early_as_often_as_the_paper_says(clock, beta, remaining):
    """Vattani et al., PVLDB 8(8), 2015: of cost δ, at τ before the expiry, with odds of exp(-τ / (δ · β))."""
    cost = 1.5
    options = CacheOptions(early_refresh_beta=beta)
    cache = ReadThroughCache(MemoryCacheStore(clock), options, clock, SystemRandomizer(seed=1))
    entry = Entry(b"x", age_seconds=0.0, remaining_seconds=remaining, cost_seconds=cost)
    early = sum(cache._is_due_early(entry) for _ in range(DRAWS))
    assert early / DRAWS == pytest.approx(math.exp(-remaining / (cost * beta)), rel=0.05)
