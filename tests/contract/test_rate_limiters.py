"""The contract of a rate limiter: every algorithm, in memory and in Redis, to the microsecond."""

import asyncio
import functools
from typing import get_args

import pytest
from redis.exceptions import ResponseError

from src.resilience.clock import SystemClock
from src.resilience.rate_limiter import redis as limiter_module
from src.resilience.rate_limiter.foresight import seconds_until
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.redis import RedisRateLimiter
from src.resilience.rate_limiter.store import Decision
from src.resilience.redis.scripts import COMMAND
from src.services.errors import StorageRefusedError
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.contract.conftest import LIBRARY_BACKENDS, TEST_TIME
from tests.support.redis_server import calls, commands_run

ALGORITHMS = get_args(Algorithm)
TICK = 1e-6

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
in_redis = pytest.mark.parametrize("backend", ["fakeredis", "redis"])


@pytest.fixture(params=LIBRARY_BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def make_limiter(store_time, backend):
    """Return a function that creates a limiter of the backend under test, with the time of `store_time`.

    With Redis, each limiter is that of another worker, which has no refusals yet. Memory has one worker.
    """

    @functools.cache
    def in_memory(algorithm, quota):
        return memory_rate_limiter(algorithm, quota, store_time.clock)

    def make_limiter(algorithm, quota):
        if store_time.link is None:
            return in_memory(algorithm, quota)
        kind = RedisRateLimiter if backend in {"client", "cluster"} else BatchedRateLimiter
        return kind(algorithm, quota, store_time.redis, store_time.clock, time_source=store_time.source)

    return make_limiter


async def spend(limiter, count, key="k"):
    for _ in range(count):
        assert (await limiter.hit(key)).allowed


# ---------------------------------------------------------------- guarantees of all policies


@every_algorithm
async def test_exactly_the_limit_is_allowed_at_once(make_limiter, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 60))
    decisions = [await limiter.hit("k") for _ in range(7)]
    assert [d.allowed for d in decisions] == [True] * 5 + [False] * 2
    assert [d.remaining for d in decisions] == [4, 3, 2, 1, 0, 0, 0]
    assert {d.limit for d in decisions} == {5}
    assert all((d.retry_after == 0) == d.allowed for d in decisions)


@every_algorithm
@pytest.mark.parametrize("cost", [1, 3, 5])
async def test_retry_after_is_exact_to_the_microsecond(make_limiter, store_time, algorithm, cost):
    limiter = make_limiter(algorithm, Quota(5, 61))
    for _ in range(4):
        await store_time.advance(1.7)
        await limiter.hit("k")
    await limiter.hit("k", 5)  # is rejected, or takes the units of the next hit
    await limiter.hit("k")
    refused = await limiter.hit("k", cost)
    assert not refused.allowed
    await store_time.advance(refused.retry_after - TICK)
    too_soon = await limiter.hit("k", cost)
    assert not too_soon.allowed
    assert too_soon.retry_after == TICK
    await store_time.advance(TICK)
    assert (await limiter.hit("k", cost)).allowed


@every_algorithm
@pytest.mark.parametrize("units", [1, 3, 4, 5, 6, 13])
async def test_foresight_of_several_units_is_exact(make_limiter, store_time, algorithm, units):
    limiter = make_limiter(algorithm, Quota(4, 8))
    for seconds, cost in ((0, 3), (5, 1), (4, 2), (1.5, 1)):
        await store_time.advance(seconds)
        await limiter.hit("k", cost)
    foreseen = await seconds_until(limiter, "k", units)
    began = store_time.clock.monotonic()
    for _ in range(units):
        while not (decision := await limiter.hit("k")).allowed:
            await store_time.advance(decision.retry_after)
    assert store_time.clock.monotonic() - began == pytest.approx(foreseen, abs=units * TICK)


@every_algorithm
async def test_reset_after_is_exact_to_the_microsecond(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 61))
    await spend(limiter, 2)
    await store_time.advance(9)
    last = await limiter.hit("k", 2)
    await store_time.advance(last.reset_after - TICK)
    assert (await limiter.peek("k")).remaining < 5
    await store_time.advance(TICK)
    assert await limiter.peek("k", 5) == Decision(True, Quota(5, 61), 5, 0, 0)


@every_algorithm
async def test_a_rejected_hit_takes_no_units(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 60))
    await spend(limiter, 4)
    before = await limiter.peek("k", 3)
    for _ in range(10):
        assert await limiter.hit("k", 3) == before
    assert before.remaining == 1
    assert (await limiter.hit("k")).allowed


@every_algorithm
async def test_a_peek_returns_the_decision_of_a_hit_and_takes_no_units(make_limiter, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 60))
    unseen = await limiter.peek("k")
    assert unseen == Decision(True, Quota(5, 60), 5, 0, 0)
    for _ in range(5):
        assert (await limiter.peek("k")).allowed
        await limiter.hit("k")
    assert await limiter.peek("k") == await limiter.hit("k")


@every_algorithm
async def test_a_cost_is_taken_completely_or_not_at_all(make_limiter, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 60))
    assert (await limiter.hit("k", 3)).remaining == 2
    assert not (await limiter.hit("k", 3)).allowed
    assert (await limiter.hit("k", 2)).remaining == 0


@every_algorithm
@pytest.mark.parametrize("quotas", [Quota(5, 60), (Quota(9, 60), Quota(5, 3600))], ids=["one", "two"])
async def test_a_hit_without_the_store_takes_its_cost_or_nothing(make_limiter, backend, algorithm, quotas):
    limiter = make_limiter(algorithm, quotas)
    allowed = [limiter.try_hit("k", 2) for _ in range(3)]
    assert allowed == ([True, True, False] if backend == "memory" else [False] * 3)
    assert (await limiter.peek("k")).remaining == 5 - 2 * sum(allowed)


@every_algorithm
@pytest.mark.parametrize("cost", [0, -1, 6])
async def test_a_cost_above_the_limit_is_an_error(make_limiter, algorithm, cost):
    limiter = make_limiter(algorithm, Quota(5, 60))
    with pytest.raises(ValueError, match="cost"):
        limiter.refusal("k", cost)
    with pytest.raises(ValueError, match="cost"):
        limiter.try_hit("k", cost)
    with pytest.raises(ValueError, match="cost"):
        await limiter.hit("k", cost)
    with pytest.raises(ValueError, match="cost"):
        await limiter.peek("k", cost)


@every_algorithm
async def test_keys_are_counted_separately_and_a_reset_forgets_one(make_limiter, algorithm):
    limiter = make_limiter(algorithm, Quota(2, 60))
    await spend(limiter, 2, "a")
    await spend(limiter, 2, "b")
    await limiter.reset("a")
    await limiter.reset("never seen")
    assert (await limiter.peek("a")).remaining == 2
    assert not (await limiter.hit("b")).allowed


@every_algorithm
async def test_an_idle_key_has_its_whole_limit_again(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(3, 60))
    await spend(limiter, 3)
    await store_time.advance(1000)
    assert (await limiter.hit("k")).remaining == 2


@every_algorithm
async def test_the_limit_applies_if_it_does_not_divide_the_window(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(7, 10))  # an interval of 1,428,571.4 µs
    await spend(limiter, 7)
    refused = await limiter.hit("k")
    await store_time.advance(refused.reset_after)
    await spend(limiter, 7)
    assert not (await limiter.hit("k")).allowed


# ---------------------------------------------------------------- when the clock jumps

HOUR = 3600.0


def longest_wait(algorithm):
    """Return the windows that a refusal may last: two for the sliding window counter, else one."""
    return 2 if algorithm == "sliding_window_counter" else 1


@every_algorithm
@pytest.mark.parametrize("back", [TICK, 1, 30, HOUR])
async def test_after_a_clock_set_back_no_refusal_exceeds_the_window(
    make_limiter, store_time, algorithm, back
):
    """In the past, a clock set back by an hour caused refusals for an hour."""
    await spend(make_limiter(algorithm, Quota(5, 60)), 5)
    await store_time.advance(1)
    await store_time.shift(-back)
    waited = 0.0
    while not (decision := await make_limiter(algorithm, Quota(5, 60)).hit("k")).allowed:
        waited += decision.retry_after
        assert waited <= 60 * longest_wait(algorithm)
        await store_time.advance(decision.retry_after)


@every_algorithm
@pytest.mark.parametrize("back", [1, HOUR])
async def test_repeated_hits_after_a_clock_set_back_do_not_extend_the_refusal(
    make_limiter, store_time, algorithm, back
):
    await spend(make_limiter(algorithm, Quota(5, 60)), 5)
    await store_time.shift(-back)
    result = await make_limiter(algorithm, Quota(5, 60)).peek("k")
    for _ in range(10):
        await store_time.advance(result.retry_after / 10)
        last = await make_limiter(algorithm, Quota(5, 60)).hit("k")
    assert last.allowed


@every_algorithm
async def test_after_a_clock_set_back_no_unit_is_used_twice(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 60))
    await spend(limiter, 3)
    for back in (HOUR, 0.25, HOUR):
        await store_time.shift(-back)
        assert (await limiter.peek("k")).remaining <= 2
    let_through = [(await limiter.hit("k")).allowed for _ in range(3)]
    assert sum(let_through) <= 2


@every_algorithm
async def test_after_a_clock_was_ahead_no_refusal_exceeds_the_window(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 60))
    await spend(limiter, 5)
    await store_time.shift(HOUR)
    for _ in range(5):  # Redis admits these hits
        await make_limiter(algorithm, Quota(5, 60)).hit("k")
    await store_time.shift(-HOUR)
    refused = await make_limiter(algorithm, Quota(5, 60)).hit("k")
    assert refused.retry_after <= 60 * longest_wait(algorithm)
    await store_time.advance(refused.retry_after)
    assert (await make_limiter(algorithm, Quota(5, 60)).hit("k")).allowed


async def test_log_hits_from_before_a_clock_set_back_leave_first(make_limiter, store_time):
    limiter = make_limiter("sliding_window_log", Quota(5, 60))
    await spend(limiter, 2)
    await store_time.shift(-HOUR)
    await limiter.peek("k")
    for _ in range(2):
        await store_time.advance(10)
        await spend(limiter, 1)
    remaining = []
    for _ in range(4):
        await store_time.advance(15 if remaining else 20)
        remaining.append((await limiter.peek("k")).remaining)
    assert remaining == [1, 1, 4, 5]


# ---------------------------------------------------------------- large limits


async def allow_in_steps(limiter, store_time, steps):
    for step in range(steps):
        await store_time.advance(TICK)
        assert (await limiter.hit("k")).allowed, step


@every_algorithm
@pytest.mark.parametrize("cost", [200_000, 1_000_000])
async def test_a_large_cost_is_taken_in_one_step(make_limiter, store_time, algorithm, cost):
    """In the past, the script ran a command for each unit, took too long, and caused an error."""
    limiter = make_limiter(algorithm, Quota(1_000_000, 60))
    taken = await limiter.hit("k", cost)
    assert (taken.allowed, taken.remaining) == (True, 1_000_000 - cost)
    assert (await limiter.peek("k", 1_000_000)).retry_after > 0
    await store_time.advance(taken.reset_after)
    assert await limiter.peek("k", 1_000_000) == Decision(True, Quota(1_000_000, 60), 1_000_000, 0, 0)


@pytest.mark.parametrize("costs", [[3], [1, 1, 1], [1, 7, 2], [50, 1, 1, 1, 40]])
async def test_log_units_of_a_hit_leave_together(make_limiter, store_time, costs):
    limiter = make_limiter("sliding_window_log", Quota(100, 60))
    for cost in costs:
        await limiter.hit("k", cost)
        await store_time.advance(1)
    free = 100 - sum(costs)
    await store_time.advance(60 - len(costs))
    for cost in costs:
        free += cost
        assert (await limiter.peek("k")).remaining == free
        await store_time.advance(1 - TICK)
        assert (await limiter.peek("k")).remaining == free, "the next hit still counts"
        await store_time.advance(TICK)


@pytest.mark.parametrize(
    ("at", "elapsed"), [(59, 0), (60 + TICK, 1), (60 + 250 * TICK, 250), (60 + 500 * TICK, 500), (61, 500)]
)
@pytest.mark.parametrize(
    "backend", [each for each in LIBRARY_BACKENDS if each != "cluster"]
)  # too slow there
async def test_log_after_many_hits_have_left_is_exact(make_limiter, store_time, at, elapsed):
    limiter = make_limiter("sliding_window_log", Quota(600, 60))
    await allow_in_steps(limiter, store_time, 500)
    await store_time.advance(30)
    await allow_in_steps(limiter, store_time, 50)
    await store_time.advance(at - 30 - 550 * TICK)
    assert (await limiter.peek("k")).remaining == 50 + elapsed
    next_leaves_at = 60 + (elapsed + 1) * TICK if elapsed < 500 else 90 + 501 * TICK
    result = (await limiter.peek("k", 51 + elapsed)).retry_after
    assert result == pytest.approx(next_leaves_at - at, abs=TICK / 10)


# ---------------------------------------------------------------- guarantees of each policy


async def test_log_each_hit_frees_its_place_exactly_one_window_later(make_limiter, store_time):
    limiter = make_limiter("sliding_window_log", Quota(3, 10))
    for gap in (0, 1, 2):  # at 0, 1 and 3 s
        await store_time.advance(gap)
        await spend(limiter, 1)
    assert (await limiter.hit("k")).retry_after == 7  # the first leaves at 10
    assert (await limiter.peek("k", 2)).retry_after == 8
    assert (await limiter.peek("k", 3)).retry_after == 10
    await store_time.advance(7)
    await spend(limiter, 1)
    assert (await limiter.hit("k")).retry_after == 1


async def test_log_allows_no_double_burst_at_the_edge_of_a_window(make_limiter, store_time):
    limiter = make_limiter("sliding_window_log", Quota(10, 60))
    await store_time.advance(59.9)
    await spend(limiter, 10)
    await store_time.advance(0.2)
    assert (await limiter.hit("k")).retry_after == pytest.approx(59.8, abs=TICK / 10)


async def test_counter_agrees_with_the_published_example(make_limiter, store_time):
    """The limit is 50 per minute, with 42 hits in the previous minute. After 15 s, 18 hits are allowed.

    Cloudflare, "Counting things, a lot of different things" (2017).
    """
    limiter = make_limiter("sliding_window_counter", Quota(50, 60))
    await spend(limiter, 42)
    await store_time.advance(75)
    await spend(limiter, 18)
    refused = await limiter.hit("k")
    assert not refused.allowed
    # 42 * (60 - x) / 60 + 19 = 50 at x = 15.714286 s
    assert refused.retry_after == pytest.approx(5 / 7, abs=TICK)


async def test_counter_waits_for_the_current_window_to_become_the_previous_one(make_limiter, store_time):
    limiter = make_limiter("sliding_window_counter", Quota(10, 60))
    await spend(limiter, 10)
    refused = await limiter.hit("k")
    assert refused.retry_after == 66  # the slot, and a tenth of the window after it
    assert refused.reset_after == 120


async def test_fixed_window_begins_with_the_first_hit_and_frees_all_units_at_its_end(
    make_limiter, store_time
):
    limiter = make_limiter("fixed_window", Quota(5, 60))
    await store_time.advance(17)
    await spend(limiter, 1)
    await store_time.advance(59)
    await spend(limiter, 4)
    assert (await limiter.hit("k", 5)).retry_after == 1
    await store_time.advance(1)
    await spend(limiter, 5)


PUBLISHED_GCRA = [
    # at, cost, allowed, remaining, reset_after, retry_after
    (0.0, 1, True, 4, 1.0, 0.0),
    (0.0, 1, True, 3, 2.0, 0.0),
    (0.0, 1, True, 2, 3.0, 0.0),
    (0.0, 1, True, 1, 4.0, 0.0),
    (0.0, 1, True, 0, 5.0, 0.0),
    (0.0, 1, False, 0, 5.0, 1.0),
    (3.0, 1, True, 2, 3.0, 0.0),
    (3.1, 1, True, 1, 3.9, 0.0),
    (4.0, 1, True, 1, 4.0, 0.0),
    (8.0, 1, True, 4, 1.0, 0.0),
    (9.5, 1, True, 4, 1.0, 0.0),
    (9.5, 2, True, 2, 3.0, 0.0),
    (9.5, 5, False, 2, 3.0, 3.0),
]
"""A burst of 5 at 1 a second: the figures that throttled, the origin of redis-cell, tests itself against
(github.com/throttled/throttled, rate_test.go)."""


@pytest.mark.parametrize("algorithm", ["leaky_bucket", "token_bucket"])
async def test_buckets_agree_with_the_published_figures_of_gcra(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(5, 5))
    clock = store_time.clock
    for at, cost, allowed, remaining, reset_after, retry_after in PUBLISHED_GCRA:
        await store_time.advance(at - clock.monotonic())
        assert await limiter.hit("k", cost) == Decision(
            allowed, Quota(5, 5), remaining, retry_after, reset_after
        )


# ---------------------------------------------------------------- additional guarantees in Redis


async def count_admitted(limiters, each):
    hits = (limiter.hit("k") for _ in range(each) for limiter in limiters)
    return sum(decision.allowed for decision in await asyncio.gather(*hits))


@every_algorithm
async def test_concurrent_workers_share_one_quota(redis_server, algorithm):
    links = [RedisLink(connect(RedisAddress(redis_server.url)), SystemClock()) for _ in range(2)]
    limiters = [BatchedRateLimiter(algorithm, Quota(10, 3600), link, SystemClock()) for link in links]
    admitted = await count_admitted(limiters, 50)
    for link in links:
        await link.aclose()
    assert admitted == 10


@every_algorithm
async def test_a_hit_is_one_round_trip(redis_link, algorithm):
    limiter = BatchedRateLimiter(algorithm, Quota(10, 60), redis_link, SystemClock())
    await limiter.peek("k")  # loads the script into the server
    before = redis_link.round_trips
    await limiter.hit("k", 3)
    assert redis_link.round_trips == before + 1


@every_algorithm
async def test_hits_of_one_tick_are_decided_in_order_by_one_run(redis_link, algorithm):
    limiter = BatchedRateLimiter(algorithm, Quota(3, 3600), redis_link, SystemClock())
    await limiter.peek("k")  # loads the script into the server
    before = await calls(redis_link, "evalsha")
    hits = [limiter.hit("k"), limiter.hit("other"), limiter.peek("k"), limiter.hit("k", 2), limiter.hit("k")]
    result = [(decision.allowed, decision.remaining) for decision in await asyncio.gather(*hits)]
    assert result == [(True, 2), (True, 2), (True, 2), (True, 0), (False, 0)]
    assert await calls(redis_link, "evalsha") == before + 1


@every_algorithm
@in_redis
async def test_a_foreign_value_under_one_key_does_not_affect_other_clients(
    make_limiter, store_time, algorithm
):
    limiter = make_limiter(algorithm, Quota(3, 60))
    await store_time.link.send("ZADD", f"{{{algorithm}:foreign}}", 1, "member")
    hits = (limiter.hit(key) for key in ("k", "foreign", "k"))
    first, second, third = await asyncio.gather(*hits, return_exceptions=True)
    assert (first.remaining, third.remaining) == (2, 1)
    assert isinstance(second, ResponseError)
    assert "WRONGTYPE" in str(second)


@every_algorithm
async def test_a_full_memory_fails_only_hits_that_need_memory(own_redis, algorithm):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    limiter = BatchedRateLimiter(algorithm, Quota(1, 60), link, SystemClock())
    await limiter.hit("spent")
    await link.send("CONFIG", "SET", "maxmemory", 1)
    hits = (limiter.hit("k"), limiter.hit("spent"), limiter.peek("k"))
    stored, refused, result = await asyncio.gather(*hits, return_exceptions=True)
    await link.aclose()
    assert isinstance(stored, StorageRefusedError)
    assert (refused.allowed, result.allowed) == (False, True)


@every_algorithm
async def test_a_key_expires_only_after_it_no_longer_counts(redis_link, algorithm):
    limiter = BatchedRateLimiter(algorithm, Quota(3, 60), redis_link, SystemClock(), prefix="app:")
    decision = await limiter.hit("rl:ingest:10.0.0.1", 3)
    left_ms = await redis_link.send("PTTL", f"app:{{{algorithm}:rl:ingest:10.0.0.1}}")
    assert decision.reset_after * 1000 - 5_000 < left_ms <= 60_000 * longest_wait(algorithm) + 1


@every_algorithm
async def test_another_algorithm_can_be_used_for_the_same_key(redis_link, algorithm):
    for other in ALGORITHMS:
        await BatchedRateLimiter(other, Quota(3, 60), redis_link, SystemClock()).hit("k")
    again = BatchedRateLimiter(algorithm, Quota(3, 60), redis_link, SystemClock())
    assert (await again.hit("k")).remaining == 1


@every_algorithm
async def test_a_smaller_quota_can_be_used_for_the_same_key(redis_link, algorithm):
    await BatchedRateLimiter(algorithm, Quota(100, 60), redis_link, SystemClock()).hit("k", 100)
    refused = await BatchedRateLimiter(algorithm, Quota(10, 30), redis_link, SystemClock()).hit("k")
    assert not refused.allowed
    assert refused.remaining == 0
    assert refused.retry_after > 0


@every_algorithm
@pytest.mark.parametrize("backend", ["redis"])
async def test_the_work_of_a_run_does_not_grow_with_the_limit(make_limiter, store_time, algorithm):
    """In the past, a hit removed a million expired units one by one, which took Redis 2.1 s."""
    limiter, link = make_limiter(algorithm, Quota(1_000_000, 60)), store_time.link
    for _ in range(4):
        await store_time.advance(1)
        await asyncio.gather(*(limiter.hit("k") for _ in range(2500)))
    busiest = 0
    for seconds, cost in ((1, 900_000), (1, 900_000), (56, 1), (3, 900_000), (1000, 1)):
        await store_time.advance(seconds)
        before = await commands_run(link)
        await make_limiter(algorithm, Quota(1_000_000, 60)).hit("k", cost)
        busiest = max(busiest, await commands_run(link) - before)
    assert busiest <= 60


# ---------------------------------------------------------------- decisions without Redis


@every_algorithm
async def test_a_known_refusal_takes_no_round_trip(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(3, 60))
    await spend(limiter, 3)
    refused = await limiter.hit("k")
    await store_time.advance(1)
    known = limiter.refusal("k")
    assert known == await limiter.hit("k")
    assert known.retry_after == pytest.approx(refused.retry_after - 1)
    assert limiter.refusal("another") is None
    await store_time.advance(known.retry_after)
    assert limiter.refusal("k") is None
    assert (await limiter.hit("k")).allowed


@in_redis
@every_algorithm
async def test_a_refused_burst_costs_one_round_trip(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(3, 60))
    await spend(limiter, 3)
    before = store_time.link.round_trips
    for _ in range(50):
        assert not (await limiter.hit("k")).allowed
        assert not (await limiter.peek("k")).allowed
    assert store_time.link.round_trips == before + 1


@in_redis
@every_algorithm
async def test_a_repeated_refusal_counts_down_to_the_decision_of_redis(make_limiter, store_time, algorithm):
    limiter, unknowing = (make_limiter(algorithm, Quota(5, 61)) for _ in range(2))
    for _ in range(5):
        await store_time.advance(0.7)
        await limiter.hit("k")
    refused = await limiter.hit("k")
    before = store_time.link.round_trips
    for _ in range(3):
        await store_time.advance(refused.retry_after / 4)
        repeated = await limiter.hit("k")
        asked = await unknowing.peek("k")
        unknowing = make_limiter(algorithm, Quota(5, 61))
        assert repeated == asked
    assert store_time.link.round_trips == before + 6, (
        "the time was set, and the other worker called Redis, three times"
    )


@in_redis
@every_algorithm
async def test_another_cost_is_decided_by_redis(make_limiter, store_time, algorithm):
    limiter, unknowing = (make_limiter(algorithm, Quota(5, 60)) for _ in range(2))
    await spend(limiter, 5)
    await store_time.advance(1)
    for cost in (2, 5, 1):
        assert await limiter.hit("k", cost) == await unknowing.peek("k", cost)


@in_redis
@every_algorithm
async def test_later_hits_delay_a_larger_cost(make_limiter, algorithm):
    limiter, unknowing = (make_limiter(algorithm, Quota(5, 60)) for _ in range(2))
    await spend(limiter, 3)
    assert not (await limiter.hit("k", 4)).allowed
    await spend(limiter, 1)
    assert await limiter.hit("k", 4) == await unknowing.peek("k", 4)


@in_redis
async def test_a_reset_applies_at_once_here_and_after_retry_after_in_other_workers(make_limiter, store_time):
    here, elsewhere = (make_limiter("fixed_window", Quota(1, 60)) for _ in range(2))
    for limiter in (here, elsewhere):
        await limiter.hit("k")
        assert not (await limiter.hit("k")).allowed
        await store_time.advance(20)
    await here.reset("k")
    assert (await here.hit("k")).allowed
    assert (await elsewhere.hit("k")).retry_after == 20
    await here.reset("k")
    await store_time.advance(20)
    assert (await elsewhere.hit("k")).allowed


async def test_a_refusal_from_before_a_reset_is_not_kept(clock):
    class Runner:
        """Decides hits only after `answer`; resets at once."""

        answer = asyncio.Event()

        async def run(self, script, _keys, _arguments):
            if script is COMMAND:
                return 1
            await self.answer.wait()
            return [[0, 0, 60_000_000, 60_000_000]]

        def checked(self, reply):
            return reply

    limiter = RedisRateLimiter("fixed_window", Quota(1, 60), runner := Runner(), clock)
    hit = asyncio.create_task(limiter.hit("k"))
    await asyncio.sleep(0)
    await limiter.reset("k")
    runner.answer.set()
    assert not (await hit).allowed
    runner.answer.clear()
    asked = asyncio.create_task(limiter.hit("k"))
    await asyncio.sleep(0)
    assert not asked.done(), "answered without Redis"
    runner.answer.set()
    await asked


async def test_network_latency_does_not_change_the_times_of_a_refusal(clock):
    class SlowRunner:
        """A run takes two tenths of a second."""

        def __init__(self):
            self.asked = 0

        async def run(self, *_args, **_kwargs):
            self.asked += 1
            clock.jump(0.2)
            return [[0, 0, 1_000_000, 3_000_000]]

        def checked(self, reply):
            return reply

    limiter = RedisRateLimiter("fixed_window", Quota(1, 3), runner := SlowRunner(), clock)
    assert (await limiter.hit("k")).retry_after == 1
    clock.jump(0.5)
    assert await limiter.hit("k") == Decision(False, Quota(1, 3), 0, retry_after=0.5, reset_after=2.5)
    clock.jump(0.3)  # a second after the request, and perhaps after the decision of Redis
    await limiter.hit("k")
    assert runner.asked == 2


@in_redis
async def test_the_number_of_keys_refused_without_redis_is_limited(make_limiter, store_time, monkeypatch):
    monkeypatch.setattr(limiter_module, "MAX_REFUSALS", 2)
    limiter = make_limiter("fixed_window", Quota(1, 60))
    for key in ("a", "b", "a", "b", "a", "c", "c"):  # the last request of b is the oldest
        await limiter.hit(key)
    before = store_time.link.round_trips
    for key in ("a", "c"):
        assert not (await limiter.hit(key)).allowed
    assert store_time.link.round_trips == before
    assert not (await limiter.hit("b")).allowed
    assert store_time.link.round_trips == before + 1


# ---------------------------------------------------------------- several quotas, and quotas that change


@every_algorithm
async def test_a_hit_takes_its_cost_from_every_quota_or_from_none(make_limiter, store_time, algorithm):
    minute, day = quotas = Quota(10, 60), Quota(12, 86_400)
    limiter = make_limiter(algorithm, quotas)
    allowed = await limiter.hit("k", 9)
    assert (allowed.allowed, allowed.quota, allowed.remaining) == (True, minute, 1)
    refused = await limiter.hit("k", 2)
    assert (refused.allowed, refused.remaining, refused.violated) == (False, 1, (minute,))
    assert [part.remaining for part in refused.parts] == [1, 3], (
        "the refused hit took no units of the quota per day"
    )
    await store_time.advance(180)
    decision = await make_limiter(algorithm, quotas).hit("k", 4)
    assert (decision.violated, decision.quota, decision.remaining) == ((day,), day, 3)
    assert decision.parts[0].remaining == 10
    await store_time.advance(decision.retry_after - TICK)
    assert not (await make_limiter(algorithm, quotas).hit("k", 4)).allowed
    await store_time.advance(TICK)
    assert (await make_limiter(algorithm, quotas).hit("k", 4)).allowed


@every_algorithm
async def test_several_violated_quotas_are_named_and_the_longest_wait_counts(
    make_limiter, store_time, algorithm
):
    second, minute, _ = quotas = Quota(2, 1), Quota(5, 61), Quota(7, 3600)
    limiter = make_limiter(algorithm, quotas)
    await limiter.hit("k", 2)
    await store_time.advance(2)
    await limiter.hit("k", 2)
    refused = await limiter.hit("k", 2)
    assert refused.violated == (second, minute)
    assert refused.retry_after == max(part.retry_after for part in refused.parts)
    await store_time.advance(refused.retry_after)
    assert (await limiter.hit("k", 2)).allowed


@every_algorithm
async def test_a_cost_above_the_smallest_limit_is_an_error(make_limiter, algorithm):
    limiter = make_limiter(algorithm, (Quota(10, 60), Quota(3, 1)))
    with pytest.raises(ValueError, match="limit of 3"):
        await limiter.hit("k", 4)
    with pytest.raises(ValueError, match="limit of 3"):
        limiter.refusal("k", 4)
    with pytest.raises(ValueError, match="limit of 3"):
        limiter.try_hit("k", 4)


@every_algorithm
@pytest.mark.parametrize("quotas", [(), (Quota(1, 1),) * 4])
async def test_a_limiter_has_one_to_three_quotas(make_limiter, algorithm, quotas):
    limiter = make_limiter(algorithm, Quota(1, 60))
    with pytest.raises(ValueError, match="between 1 and 3 quotas"):
        limiter.change_quotas(quotas)
    assert limiter.quotas == (Quota(1, 60),)


@every_algorithm
async def test_a_reset_forgets_every_quota(make_limiter, algorithm):
    limiter = make_limiter(algorithm, (Quota(2, 60), Quota(2, 3600)))
    await limiter.hit("k", 2)
    await limiter.reset("k")
    assert (await limiter.hit("k", 2)).allowed


@every_algorithm
@pytest.mark.parametrize(("limit", "remaining"), [(5, 0), (7, 1), (20, 14)])
async def test_used_units_stay_used_when_the_limit_changes(make_limiter, algorithm, limit, remaining):
    limiter = make_limiter(algorithm, Quota(10, 60))
    await limiter.hit("k", 6)
    limiter.change_quotas(Quota(limit, 60))
    assert (await limiter.peek("k")).remaining == remaining
    if remaining:
        assert (await limiter.hit("k", remaining)).allowed
    refused = await limiter.hit("k")
    assert not refused.allowed
    assert refused.retry_after <= 60 * longest_wait(algorithm)


@every_algorithm
@pytest.mark.parametrize("window", [1, 30, 600])
async def test_no_refusal_is_longer_than_the_window_of_a_changed_quota(
    make_limiter, store_time, algorithm, window
):
    limiter = make_limiter(algorithm, Quota(10, 60))
    await limiter.hit("k", 10)
    await store_time.advance(0.5)
    limiter.change_quotas(Quota(3, window))
    refused = await limiter.hit("k")
    assert refused.retry_after <= window * longest_wait(algorithm)
    await store_time.advance(refused.retry_after)
    assert (await limiter.hit("k")).allowed


@every_algorithm
async def test_a_refusal_from_before_a_change_is_forgotten(make_limiter, store_time, algorithm):
    limiter = make_limiter(algorithm, Quota(2, 60))
    await spend(limiter, 2)
    assert not (await limiter.hit("k")).allowed
    limiter.change_quotas(Quota(3, 60))
    assert limiter.refusal("k") is None
    await spend(limiter, 1)
    limiter.change_quotas((Quota(5, 60), Quota(1, 3600)))
    await spend(limiter, 1)  # an added quota begins without counts
    assert (await limiter.hit("k")).violated == (Quota(1, 3600),)


@in_redis
@every_algorithm
async def test_workers_with_different_quotas_share_the_counts_of_a_key(make_limiter, algorithm):
    former, latter = (
        make_limiter(algorithm, Quota(10, 60)),
        make_limiter(algorithm, (Quota(6, 60), Quota(100, 3600))),
    )
    for _ in range(3):
        await spend(former, 1)
        await spend(latter, 1)
    assert not (await latter.hit("k")).allowed
    await spend(former, 4)
    assert not (await former.hit("k")).allowed


async def test_a_refusal_that_arrives_after_a_change_is_not_kept(clock):
    class Runner:
        """Decides a hit only after `answer`."""

        answer = asyncio.Event()

        async def run(self, _script, _keys, _arguments):
            await self.answer.wait()
            return [[0, 0, 60_000_000, 60_000_000]]

        def checked(self, reply):
            return reply

    limiter = RedisRateLimiter("fixed_window", Quota(1, 60), runner := Runner(), clock)
    hit = asyncio.create_task(limiter.hit("k"))
    await asyncio.sleep(0)
    limiter.change_quotas((Quota(2, 60), Quota(9, 3600)))
    runner.answer.set()
    assert (await hit).quota == Quota(1, 60), "the quota at the time of the hit decided"
    assert limiter.refusal("k") is None


@every_algorithm
async def test_hits_of_one_tick_with_different_quotas_are_one_run(redis_link, algorithm):
    limiter = BatchedRateLimiter(algorithm, Quota(1, 3600), redis_link, SystemClock())
    await limiter.peek("k")  # loads the script into the server
    before = await calls(redis_link, "evalsha")

    async def change():
        limiter.change_quotas((Quota(3, 3600), Quota(2, 3600)))

    first, _, *others = await asyncio.gather(
        limiter.hit("a"), change(), limiter.hit("a"), limiter.hit("b", 2)
    )
    decisions = [first, *others]
    assert [decision.remaining for decision in decisions] == [0, 1, 0]
    assert [len(decision.by_quota) for decision in decisions] == [1, 2, 2]
    assert await calls(redis_link, "evalsha") == before + 1


@every_algorithm
async def test_a_hundred_concurrent_hits_share_two_quotas(redis_server, redis_link, clock, algorithm):
    links = [RedisLink(connect(RedisAddress(redis_server.url)), SystemClock()) for _ in range(4)]
    quotas = Quota(10, 60), Quota(12, 86_400)
    admitted = []
    for minute in (0, 3):
        await redis_link.send("SET", "test:now_us", (10**9 + minute * 60) * 10**6)
        limiters = [
            BatchedRateLimiter(algorithm, quotas, link, clock, time_source=TEST_TIME) for link in links
        ]
        admitted.append(await count_admitted(limiters, 25))
    for link in links:
        await link.aclose()
    assert admitted == [10, 2]
