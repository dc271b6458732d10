"""The limiter's failure policy: fail open, and say so."""

from src.resilience.events import Bypassed, Rejected
from src.resilience.memory_rate_limiter import memory_rate_limiter
from src.resilience.rate_limiter import Quota
from src.services.admission import Admission
from src.services.errors import StorageUnavailableError

QUOTA = Quota(1, 60)


class BrokenLimiter:
    """A limiter whose store is away."""

    def __init__(self, error):
        self._error = error

    async def hit(self, key, cost=1):
        raise self._error


async def test_the_verdict_is_the_limiters(clock, listener):
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener)
    assert (await admission.decide("1.2.3.4")).allowed
    refused = await admission.decide("1.2.3.4")
    assert not refused.allowed
    assert listener.events == [Rejected(policy="ingest", retry_after=60.0)]
    assert (await admission.decide("1.2.3.5")).allowed


async def test_a_store_that_is_away_lets_everyone_through(listener):
    error = StorageUnavailableError("away")
    admission = Admission("ingest", QUOTA, BrokenLimiter(error), listener)
    assert [await admission.decide("1.2.3.4") for _ in range(3)] == [None] * 3
    assert listener.events == [Bypassed(policy="ingest", error=error)] * 3


async def test_an_outage_is_logged_once_and_its_end_too(clock, listener, caplog):
    broken = BrokenLimiter(StorageUnavailableError("away"))
    admission = Admission("ingest", QUOTA, broken, listener)
    for _ in range(3):
        await admission.decide("1.2.3.4")
    admission._limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    for _ in range(3):
        await admission.decide("1.2.3.4")
    assert [record.getMessage() for record in caplog.records] == ["limiter_fails_open", "limiter_is_back"]


async def test_every_request_is_observed_with_its_outcome(clock, listener):
    outcomes = []
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, clock)
    admission = Admission("ingest", QUOTA, limiter, listener, outcomes.append)
    await admission.decide("1.2.3.4")
    await admission.decide("1.2.3.4")
    admission._limiter = BrokenLimiter(StorageUnavailableError("away"))
    await admission.decide("1.2.3.4")
    assert outcomes == ["allowed", "refused", "bypassed"]
