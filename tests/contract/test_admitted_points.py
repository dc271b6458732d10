"""The contract of storing points together with the limiter's decision: the result is that of two steps."""

import asyncio
from functools import partial
from typing import get_args

import pytest
from redis.exceptions import ResponseError

from src.analytics.points import Point
from src.resilience.clock import SystemClock
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.store import Decision
from src.services.errors import (
    OutcomeUnknownError,
    StorageRefusedError,
    StorageUnavailableError,
    WriteUnconfirmedError,
)
from src.services.metrics.ingest import MetricService
from src.storage.metrics.admitted_points import AdmittedPoints
from src.storage.metrics.store import RedisMetricStore
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.contract.conftest import TEST_TIME
from tests.support.metric_model import MemoryMetricStore, memory_admit_and_add
from tests.support.redis_server import calls

NOW = 1_800_000_000_000_000

every_algorithm = pytest.mark.parametrize("algorithm", get_args(Algorithm))


class Ingest:
    """The limiter and the store of the backend under test, and a write that uses both."""

    def __init__(self, link, clock, algorithm="sliding_window_log", limit=3, time_source=TEST_TIME):
        quota = Quota(limit, 60)
        if link is None:
            self.limiter = memory_rate_limiter(algorithm, quota, clock)
            self.store = MemoryMetricStore(clock)
            self.admit_and_add = memory_admit_and_add(self.limiter)
        else:
            self.limiter = BatchedRateLimiter(algorithm, quota, link, clock, time_source=time_source)
            self.store = RedisMetricStore(link, clock, time_source=time_source)
            self.admit_and_add = AdmittedPoints(self.limiter, self.store, link).admit_and_add
        self.service = MetricService(self.store, self.admit_and_add)

    async def __call__(self, value, key="k", metric_type="cpu"):
        """Store one measurement if the quota allows it, and return the decision."""
        point = Point(metric_type, NOW + value, value)
        decision, is_stored = await self.admit_and_add(key, point)
        if decision.allowed:
            await self.service.ingest_one(point, is_stored)
        return decision

    async def stored(self, metric_type=None):
        return sorted(stored.point.value for stored in await self.store.newest(metric_type, 1000))


@pytest.fixture
def make_ingest(store_time):
    return partial(Ingest, store_time.link, store_time.clock)


@every_algorithm
async def test_an_allowed_point_is_stored_and_a_rejected_one_is_not(make_ingest, algorithm):
    ingest = make_ingest(algorithm)
    decisions = [await ingest(value) for value in range(5)]
    assert [decision.allowed for decision in decisions] == [True] * 3 + [False] * 2
    assert await ingest.stored() == [0, 1, 2]
    assert (await ingest.store.aggregate("cpu", None)).rollup.total == 3


@every_algorithm
async def test_the_decision_is_that_of_the_limiter(make_ingest, store_time, algorithm):
    together, apart = make_ingest(algorithm), make_ingest(algorithm)
    for value in range(7):
        assert await together(value, "together") == await apart.limiter.hit("apart")
        await store_time.advance(7)


@every_algorithm
async def test_of_concurrent_points_only_those_within_the_quota_are_stored(make_ingest, algorithm):
    ingest = make_ingest(algorithm)
    decisions = await asyncio.gather(*(ingest(value) for value in range(10)))
    allowed = [value for value, decision in enumerate(decisions) if decision.allowed]
    assert len(allowed) == 3
    assert await ingest.stored() == allowed
    assert (await ingest.limiter.peek("k")).remaining == 0


async def test_a_rejected_client_does_not_affect_others(make_ingest):
    ingest = make_ingest(limit=1)
    await ingest.limiter.hit("spent")
    keys = ["a", "spent", "b", "spent", "c"]
    decisions = await asyncio.gather(*(ingest(value, key) for value, key in enumerate(keys)))
    assert [decision.allowed for decision in decisions] == [True, False, True, False, True]
    assert await ingest.stored() == [0, 2, 4]


async def test_concurrent_points_can_have_many_types(make_ingest):
    ingest = make_ingest(limit=100)
    await asyncio.gather(*(ingest(value, metric_type=f"t{value % 7}") for value in range(50)))
    assert await ingest.stored() == list(range(50))
    for number in range(7):
        assert await ingest.stored(f"t{number}") == list(range(number, 50, 7))


async def test_a_point_is_allowed_after_retry_after(make_ingest, store_time):
    ingest = make_ingest(limit=1)
    await ingest(0)
    refused = await ingest(1)
    await store_time.advance(refused.retry_after)
    assert (await ingest(2)).allowed
    assert await ingest.stored() == [0, 2]


async def test_the_point_of_a_cancelled_request_is_stored_at_most_once(make_ingest):
    ingest = make_ingest(limit=100)
    leaving = asyncio.create_task(ingest(0))
    await asyncio.sleep(0)
    leaving.cancel()
    await ingest(1)
    assert await ingest.stored() in ([1], [0, 1])


@pytest.mark.parametrize("backend", ["fakeredis", "redis"])
async def test_a_foreign_value_under_one_type_does_not_affect_other_clients(make_ingest, store_time):
    """In the past, no request of the tick got its decision, and no point was stored."""
    ingest = make_ingest()
    await store_time.link.send("SET", "m:{broken}:d", "foreign")
    types = ["cpu", "broken", "cpu"]
    points = [Point(name, NOW + n, float(n)) for n, name in enumerate(types)]
    results = await asyncio.gather(*(ingest.admit_and_add(f"k{n}", point) for n, point in enumerate(points)))
    assert [(decision.allowed, decision.remaining) for decision, _ in results] == [(True, 2)] * 3
    writes = (
        ingest.service.ingest_one(point, stored) for point, (_, stored) in zip(points, results, strict=True)
    )
    finished = await asyncio.gather(*writes, return_exceptions=True)
    assert [finished[0], finished[2]] == [None, None]
    assert isinstance(finished[1], ResponseError)
    assert await ingest.stored("cpu") == [0, 2]


# ---------------------------------------------------------------- additional guarantees in Redis


@pytest.fixture
def ingest(redis_link):
    return Ingest(redis_link, SystemClock(), limit=100, time_source="local function now_us() return 1e15 end")


async def test_a_point_takes_one_round_trip(ingest, redis_link):
    await ingest(0)  # loads the script into the server
    before = redis_link.round_trips
    assert await ingest(1) == Decision(True, Quota(100, 60), 98, 0, 60)
    assert redis_link.round_trips == before + 1


async def test_the_points_of_one_tick_are_one_run_of_the_script(ingest, redis_link):
    await ingest(0)
    before = await calls(redis_link, "evalsha")
    await asyncio.gather(*(ingest(value, f"k{value % 3}") for value in range(1, 30)))
    assert await calls(redis_link, "evalsha") == before + 1
    assert await ingest.stored() == list(range(30))


async def test_a_known_rejection_takes_no_round_trip(redis_link):
    ingest = Ingest(redis_link, SystemClock(), limit=1, time_source="local function now_us() return 1e15 end")
    for value in range(2):
        await ingest(value)
    before = redis_link.round_trips
    assert not (await ingest(2)).allowed
    assert redis_link.round_trips == before


@pytest.mark.parametrize("backend", ["fakeredis", "redis"])
async def test_a_foreign_value_under_one_key_does_not_affect_other_clients(make_ingest, store_time):
    ingest = make_ingest()
    await store_time.link.send("ZADD", "{sliding_window_log:foreign}", 1, "member")
    writes = (ingest(value, key) for value, key in enumerate(["k", "foreign", "k"]))
    first, second, third = await asyncio.gather(*writes, return_exceptions=True)
    assert (first.remaining, third.remaining) == (2, 1)
    assert isinstance(second, ResponseError)
    assert await ingest.stored() == [0, 2]


async def test_if_only_the_decision_fails_the_point_is_stored(own_redis):
    """The limiter then fails open, so the point is stored."""
    with own_redis.connect() as client:
        client.acl_setuser("api", enabled=True, nopass=True, commands=["+@all"], keys=["m:*", "types"])
    link = RedisLink(
        connect(RedisAddress(own_redis.url.replace("unix://", "unix://api:any@"))), SystemClock()
    )
    store = RedisMetricStore(link, SystemClock())
    limiter = BatchedRateLimiter("sliding_window_log", Quota(3, 60), link, SystemClock())
    admit_and_add, point = AdmittedPoints(limiter, store, link).admit_and_add, Point("cpu", NOW, 1.0)
    with pytest.raises(StorageRefusedError) as refused:
        await admit_and_add("k", point)
    await MetricService(store, admit_and_add).ingest_one(point, refused.value)
    stored = await store.newest("cpu", 10)
    await link.aclose()
    assert [each.point.value for each in stored] == [1.0]


async def test_a_write_that_redis_rejected_midway_is_not_repeated(own_redis):
    with own_redis.connect() as client:
        keys = ["%R~*", "~types", "~{sliding_window_log:k}", "~m:{cpu}:[^r]*"]  # all but m:{cpu}:r:<hour>
        client.acl_setuser("api", enabled=True, nopass=True, commands=["+@all"])
        if int(client.info("server")["redis_version"].partition(".")[0]) < 7:
            pytest.skip("Redis 6.2 does not tell reading from writing a key")
        client.execute_command("ACL", "SETUSER", "api", *keys)
        link = RedisLink(
            connect(RedisAddress(own_redis.url.replace("unix://", "unix://api:any@"))), SystemClock()
        )
        ingest = Ingest(link, SystemClock(), time_source="local function now_us() return 1e15 end")
        point = Point("cpu", NOW, 1.0)
        decision, is_stored = await ingest.admit_and_add("k", point)
        assert decision.allowed
        client.execute_command("ACL", "SETUSER", "api", "~*")
        with pytest.raises(WriteUnconfirmedError):
            await ingest.service.ingest_one(point, is_stored)
        count = (await ingest.store.aggregate("cpu", None)).rollup.count
        await link.aclose()
    assert count == 1


async def test_a_write_without_a_reply_is_not_repeated(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    ingest = Ingest(link, SystemClock(), limit=100, time_source="local function now_us() return 1e15 end")
    await ingest(0)
    own_redis.freeze()
    point = Point("cpu", NOW, 1.0)
    with pytest.raises(WriteUnconfirmedError) as unanswered:  # Redis executes the command later
        await ingest.admit_and_add("k", point)
    own_redis.thaw()
    async with asyncio.timeout(5):
        while not await link.ping() or len(await ingest.stored()) < 2:
            await asyncio.sleep(0.02)
    with pytest.raises(WriteUnconfirmedError):
        await ingest.service.ingest_one(point, unanswered.value)
    stored = await ingest.stored()
    await link.aclose()
    assert stored == [0, 1]


async def test_a_point_that_was_not_sent_is_stored_when_redis_is_back(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    ingest = Ingest(link, SystemClock(), limit=100, time_source="local function now_us() return 1e15 end")
    await ingest(0)
    own_redis.freeze()
    with pytest.raises(OutcomeUnknownError):
        await link.send("GET", "word")
    point = Point("cpu", NOW, 1.0)
    with pytest.raises(StorageUnavailableError) as not_sent:
        await ingest.admit_and_add("k", point)
    own_redis.thaw()
    await link.until_up()
    await ingest.service.ingest_one(point, not_sent.value)
    stored = await ingest.stored()
    await link.aclose()
    assert stored == [0, 1]
