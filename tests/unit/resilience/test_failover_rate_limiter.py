"""A rate limiter that decides by the worker's share while its store is unavailable."""

import pytest

from src.resilience.errors import StoreUnavailableError
from src.resilience.rate_limiter import (
    Decision,
    FailoverRateLimiter,
    Quota,
    RateLimit,
    RateLimitOptions,
    memory_rate_limiter,
)
from src.resilience.rate_limiter.memory import FixedWindow

QUOTA = Quota(8, 60)


class Fleet:
    """A limiter with a store that may be unavailable."""

    def __init__(self, limiter):
        self._limiter = limiter
        self.algorithm = limiter.algorithm
        self.change_quotas = limiter.change_quotas
        self.rejections = {}
        self.is_available = True

    @property
    def quotas(self):
        return self._limiter.quotas

    async def hit(self, key, cost=1):
        return await self._ask("hit", key, cost)

    async def peek(self, key, cost=1):
        return await self._ask("peek", key, cost)

    async def reset(self, key):
        await self._ask("reset", key)

    async def _ask(self, method, *arguments):
        if not self.is_available:
            raise StoreUnavailableError("Redis is unavailable")
        return await getattr(self._limiter, method)(*arguments)

    def try_hit(self, key, cost=1):
        return False

    def refusal(self, key, cost=1):
        return self.rejections.get(key)


@pytest.fixture
def fleet(clock):
    return Fleet(memory_rate_limiter("fixed_window", QUOTA, clock))


@pytest.fixture
def limiter(fleet, clock):
    return FailoverRateLimiter(fleet, clock, workers=4)


async def test_the_shared_limiter_decides_while_it_is_available(limiter, fleet):
    assert (limiter.algorithm, limiter.quotas) == ("fixed_window", (QUOTA,))
    assert (await limiter.hit("k", 5)).remaining == 3
    assert (await limiter.peek("k", 4)).allowed is False
    assert limiter.try_hit("k") is False
    await limiter.reset("k")
    assert (await fleet.peek("k")).remaining == 8


async def test_during_an_outage_each_worker_has_its_share_and_a_count_of_its_own(limiter, fleet):
    await limiter.hit("k", 7)
    fleet.is_available = False
    decisions = [await limiter.hit("k") for _ in range(3)]
    assert [(decision.allowed, decision.remaining) for decision in decisions] == [
        (True, 1),
        (True, 0),
        (False, 0),
    ]
    assert decisions[0].quota == Quota(2, 60)
    assert not (await limiter.peek("k")).allowed
    fleet.is_available = True
    assert (await limiter.hit("k")).remaining == 0, "the shared count goes on"
    assert not (await limiter.hit("k")).allowed


async def test_during_an_outage_a_cost_above_the_share_takes_all_of_the_share(limiter, fleet):
    fleet.is_available = False
    assert (await limiter.peek("k", 5)).allowed
    assert [(await limiter.hit("k", 5)).allowed for _ in range(2)] == [True, False]


async def test_a_rejection_that_is_known_is_repeated_in_an_outage_too(limiter, fleet):
    fleet.rejections["k"] = rejection = Decision(False, QUOTA, 0, 5.0, 5.0)
    fleet.is_available = False
    assert limiter.refusal("k") == rejection
    assert limiter.refusal("other") is None


async def test_other_quotas_have_other_shares(limiter, fleet):
    limiter.change_quotas((Quota(20, 60), Quota(100, 3600)))
    assert limiter.quotas == (Quota(20, 60), Quota(100, 3600))
    fleet.is_available = False
    assert [part.quota for part in (await limiter.hit("k")).parts] == [Quota(5, 60), Quota(25, 3600)]


async def test_a_reset_in_an_outage_raises_and_forgets_the_count_of_this_worker(limiter, fleet):
    fleet.is_available = False
    await limiter.hit("k", 2)
    with pytest.raises(StoreUnavailableError):
        await limiter.reset("k")
    assert (await limiter.hit("k", 2)).allowed


async def test_an_outage_is_logged_once_and_so_is_its_end(limiter, fleet, caplog):
    for is_available in (False, False, True, True):
        fleet.is_available = is_available
        await limiter.hit("k")
    assert [record.message for record in caplog.records] == ["limiter_local", "limiter_shared_again"]


async def test_a_repeated_rejection_is_no_sign_that_the_store_is_available(limiter, fleet, clock, caplog):
    fleet.is_available = False
    await limiter.hit("k")
    fleet.hit = FixedWindow(Quota(1, 60), clock).hit
    await fleet.hit("k")
    assert not (await limiter.hit("k")).allowed
    assert [record.message for record in caplog.records] == ["limiter_local"]


async def test_a_policy_takes_its_units_from_it(limiter, fleet, clock):
    policy = RateLimit(limiter, RateLimitOptions("k", max_wait_seconds=0), clock)

    async def call():
        return "answer"

    fleet.is_available = False
    assert await policy.run(call) == "answer"


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_an_error(fleet, workers):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        FailoverRateLimiter(fleet, workers=workers)
