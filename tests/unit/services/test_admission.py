"""The limiter's failure policy: fail open, decide locally or fail closed."""

import asyncio

import pytest

from src.resilience.events import Bypassed, Rejected
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota
from src.services.access.admission import Admission
from src.services.errors import StorageRefusedError, StorageUnavailableError

QUOTA = Quota(1, 60)


class BrokenLimiter:
    """A limiter whose store is unavailable, without known rejections."""

    def __init__(self, error):
        self._error = error

    async def hit(self, key, cost=1):
        raise self._error

    def refusal(self, key, cost=1):
        return None


async def test_the_decision_is_that_of_the_limiter(clock, listener):
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener)
    assert (await admission.decide("1.2.3.4")).allowed
    refused = await admission.decide("1.2.3.4")
    assert not refused.allowed
    assert (await admission.decide("1.2.3.5")).allowed
    await asyncio.sleep(0)
    assert listener.events == [Rejected(policy="ingest", retry_after=60.0)]


async def test_the_unit_can_be_taken_together_with_another_command(clock, listener):
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener)
    asked = []

    async def hit(key):
        asked.append(key)
        return await limiter.hit(key), "result"

    decision, result = await admission.decide_with("1.2.3.4", hit)
    assert (decision.allowed, result) == (True, "result")
    assert not (await admission.decide("1.2.3.4")).allowed
    assert asked == ["rl:ingest:1.2.3.4"]


async def test_without_a_store_every_request_is_admitted(listener):
    error = StorageUnavailableError("away")
    admission = Admission("ingest", QUOTA, BrokenLimiter(error), listener)
    assert [await admission.decide("1.2.3.4") for _ in range(3)] == [None] * 3
    await asyncio.sleep(0)
    assert listener.events == [Bypassed(policy="ingest", times=3, error=error)]


async def test_an_outage_is_logged_once_and_its_end_too(clock, listener, caplog):
    broken = BrokenLimiter(StorageUnavailableError("away"))
    admission = Admission("ingest", QUOTA, broken, listener)
    for _ in range(3):
        await admission.decide("1.2.3.4")
    admission._limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    for _ in range(3):
        await admission.decide("1.2.3.4")
    assert [record.getMessage() for record in caplog.records] == ["limiter_fails_open", "limiter_recovered"]


@pytest.fixture(params=[StorageUnavailableError, StorageRefusedError])
def broken(request):
    """A limiter whose store is unavailable, or rejects commands since its memory is full."""
    return BrokenLimiter(request.param("away"))


def local_admission(limiter, share, clock, listener, observe=lambda _outcomes: None):
    local = memory_rate_limiter("sliding_window_log", share, clock)
    quota = Quota(10, 60)
    return Admission("ingest", quota, limiter, listener, observe, outage_policy="local", local=local)


async def test_with_the_policy_local_a_worker_decides_by_its_share_of_the_quota(clock, listener, broken):
    observed = []
    admission = local_admission(broken, Quota(10, 60).share(4), clock, listener, observed.append)
    decisions = [await admission.decide("1.2.3.4") for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True, True, False, False, False]
    assert [decision.remaining for decision in decisions] == [1, 0, 0, 0, 0]
    assert (await admission.decide("1.2.3.5")).allowed
    clock.jump(decisions[-1].retry_after)
    assert (await admission.decide("1.2.3.4")).allowed
    await asyncio.sleep(0)
    assert listener.events == [Rejected(policy="ingest", times=3, retry_after=60.0)]
    assert observed == [{"allowed": 4, "refused": 3, "bypassed": 0}]


async def test_the_fleet_decides_again_as_soon_as_it_can(clock, listener, caplog):
    admission = local_admission(BrokenLimiter(StorageUnavailableError("away")), Quota(1, 60), clock, listener)
    for _ in range(3):
        await admission.decide("1.2.3.4")
    admission._limiter = memory_rate_limiter("sliding_window_log", Quota(10, 60), clock)
    assert (await admission.decide("1.2.3.4")).remaining == 9
    assert [record.getMessage() for record in caplog.records] == ["limiter_local", "limiter_recovered"]


async def test_with_the_policy_closed_no_request_is_admitted_without_a_decision(
    clock, listener, broken, caplog
):
    observed = []
    admission = Admission("ingest", QUOTA, broken, listener, observed.append, outage_policy="closed")
    for _ in range(3):
        with pytest.raises(StorageUnavailableError):
            await admission.decide("1.2.3.4")
    await asyncio.sleep(0)
    assert listener.events == [Rejected(policy="ingest", times=3, retry_after=1.0)]
    assert observed == [{"allowed": 0, "refused": 3, "bypassed": 0}]
    assert [record.getMessage() for record in caplog.records] == ["limiter_fails_closed"]


@pytest.mark.parametrize(("workers", "limit"), [(1, 10), (2, 5), (3, 3), (10, 1), (64, 1)])
def test_a_workers_share_of_a_quota_is_whole_and_at_least_one(workers, limit):
    assert Quota(10, 60).share(workers) == Quota(limit, 60)


async def test_a_client_over_its_quota_is_rejected_without_redis(clock, listener):
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener)
    assert admission.known_rejection("1.2.3.4") is None
    await admission.decide("1.2.3.4")
    clock.jump(20)
    assert admission.known_rejection("1.2.3.4") == await limiter.peek("rl:ingest:1.2.3.4")
    assert admission.known_rejection("1.2.3.5") is None
    await asyncio.sleep(0)
    assert listener.events == [Rejected(policy="ingest", retry_after=40.0)]


async def test_the_rejections_of_a_tick_are_one_event(clock, listener):
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener)
    for _ in range(4):
        await admission.decide("1.2.3.4")
    admission.known_rejection("1.2.3.4")
    await asyncio.sleep(0)
    assert listener.events == [Rejected(policy="ingest", times=4, retry_after=60.0)]
    admission.known_rejection("1.2.3.4")
    await asyncio.sleep(0)
    assert len(listener.events) == 2


async def test_a_rejection_does_not_prove_that_the_store_has_recovered(clock, listener, caplog):
    """The limiter may have repeated the rejection without the store."""
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    await limiter.hit("rl:ingest:1.2.3.4")
    admission = Admission("ingest", QUOTA, BrokenLimiter(StorageUnavailableError("away")), listener)
    for _ in range(3):
        admission._limiter = BrokenLimiter(StorageUnavailableError("away"))
        await admission.decide("1.2.3.5")
        admission._limiter = limiter
        assert not (await admission.decide("1.2.3.4")).allowed
    assert [record.getMessage() for record in caplog.records] == ["limiter_fails_open"]


async def test_every_request_is_observed_with_its_outcome(clock, listener):
    observed = []
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener, observed.append)
    for _ in range(3):
        await admission.decide("1.2.3.4")
    admission._limiter = BrokenLimiter(StorageUnavailableError("away"))
    await admission.decide("1.2.3.4")
    await asyncio.sleep(0)
    assert observed == [{"allowed": 1, "refused": 2, "bypassed": 1}]
