"""The contract of every cache store, and the additional guarantees of the store in Redis."""

import asyncio
import gc
import logging
import math
from dataclasses import replace

import pytest

from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.policy import POLL_INTERVAL_SECONDS, ReadThroughCache
from src.resilience.cache.redis import RedisCacheStore
from src.resilience.cache.store import CacheStore, Entry, Lease
from src.resilience.clock import SystemClock, SystemRandomizer
from src.resilience.rate_limiter.options import Quota
from src.services.errors import StorageUnavailableError
from src.storage.patterns.batched_cache_store import BatchedCacheStore
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.contract.conftest import LIBRARY_BACKENDS, Advance
from tests.support.clock import FakeClock
from tests.support.redis_cluster import ClientAccess
from tests.support.redis_server import RedisServer, calls

KEY = "summary:cpu:hourly"
OPTIONS = CacheOptions(ttl_seconds=300, stale_seconds=3600, lease_seconds=100)
ANY_FRESH = math.inf
LEEWAY_SECONDS = 30.0
"""Redis' own clock goes on while a test runs; no test is as slow as this."""


@pytest.fixture(params=LIBRARY_BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def store(link: RedisLink | ClientAccess | None, clock: FakeClock) -> CacheStore:
    if isinstance(link, ClientAccess):
        return RedisCacheStore(link.client)
    return MemoryCacheStore(clock) if link is None else BatchedCacheStore(link)


@pytest.fixture
def set_clock_back(link: RedisLink | ClientAccess | None, clock: FakeClock) -> Advance:
    """Set the store's clock back. With Redis, this lengthens every expiry."""

    async def set_clock_back(seconds: float) -> None:
        clock.shift_time_of_day(-seconds)
        for key in await link.send("KEYS", "*") if link is not None else ():
            await link.send("PEXPIRE", key, await link.send("PTTL", key) + round(seconds * 1000))

    return set_clock_back


async def fill(store: CacheStore, body: bytes, options: CacheOptions = OPTIONS) -> bool:
    assert await store.take_lease(KEY, "filler", 0, options) is Lease.TAKEN
    return await store.fill(KEY, "filler", body, options)


async def test_a_read_of_an_empty_store_is_a_miss(store: CacheStore):
    assert await store.read(KEY, OPTIONS) is None
    assert await store.read_last_good(KEY, OPTIONS) is None


async def test_a_stored_answer_is_read_with_age_remaining_time_and_cost(store: CacheStore, advance: Advance):
    body = b'\x00\xff{"count":1}\r\n'
    await store.take_lease(KEY, "token", ANY_FRESH, OPTIONS)
    await advance(50)
    assert await store.fill(KEY, "token", body, OPTIONS)
    await advance(100)

    entry = await store.read(KEY, OPTIONS)

    assert entry is not None
    assert entry.body == body
    assert entry.cost_seconds == pytest.approx(50, abs=LEEWAY_SECONDS)
    assert entry.age_seconds == pytest.approx(100, abs=LEEWAY_SECONDS)
    assert entry.age_seconds + entry.remaining_seconds == pytest.approx(300)


async def test_an_entry_expires_after_its_ttl_and_the_last_good_copy_later(
    store: CacheStore, advance: Advance
):
    await fill(store, b"one")

    await advance(300)
    assert await store.read(KEY, OPTIONS) is None
    last_good = await store.read_last_good(KEY, OPTIONS)
    assert last_good is not None
    assert last_good.body == b"one"
    assert last_good.age_seconds == pytest.approx(300, abs=LEEWAY_SECONDS)

    await advance(3300)
    assert await store.read_last_good(KEY, OPTIONS) is None


async def test_without_stale_seconds_there_is_no_last_good_copy(store: CacheStore):
    never_stale = CacheOptions(ttl_seconds=300, stale_seconds=0)
    await fill(store, b"one", never_stale)

    assert await store.read(KEY, never_stale) is not None
    assert await store.read_last_good(KEY, never_stale) is None


REVALIDATING = CacheOptions(ttl_seconds=300, stale_seconds=0, lease_seconds=100, revalidate_seconds=200)


async def test_an_expired_answer_is_read_during_the_revalidate_time(store: CacheStore, advance: Advance):
    await store.take_lease(KEY, "token", ANY_FRESH, REVALIDATING)
    await advance(50)
    await store.fill(KEY, "token", b"one", REVALIDATING)
    assert await store.read_expired(KEY, REVALIDATING, REVALIDATING.served_seconds) is None, "it is fresh"

    await advance(300)
    assert await store.read(KEY, REVALIDATING) is None
    expired = await store.read_expired(KEY, REVALIDATING, REVALIDATING.served_seconds)
    assert expired is not None
    assert expired.body == b"one"
    assert expired.cost_seconds == pytest.approx(50, abs=LEEWAY_SECONDS)
    assert expired.age_seconds == pytest.approx(300, abs=LEEWAY_SECONDS)
    assert expired.age_seconds + expired.remaining_seconds == pytest.approx(500)
    assert await store.read_last_good(KEY, REVALIDATING) is None, (
        "this entry must not replace a failed computation"
    )
    assert await store.take_lease(KEY, "next", ANY_FRESH, REVALIDATING) is Lease.TAKEN

    await advance(200)
    assert await store.read_expired(KEY, REVALIDATING, REVALIDATING.served_seconds) is None


@pytest.mark.parametrize("stale_seconds", [350, 3600])
async def test_the_revalidate_time_is_independent_of_the_stale_time(
    store: CacheStore, advance: Advance, stale_seconds: float
):
    options = replace(REVALIDATING, stale_seconds=stale_seconds)
    await fill(store, b"one", options)

    await advance(420)
    assert await store.read_expired(KEY, options, options.served_seconds) is not None
    assert (await store.read_last_good(KEY, options) is None) == (stale_seconds == 350)

    await advance(80)
    assert await store.read_expired(KEY, options, options.served_seconds) is None
    assert (await store.read_last_good(KEY, options) is None) == (stale_seconds == 350)


async def test_without_revalidate_seconds_no_expired_answer_is_read(store: CacheStore, advance: Advance):
    await fill(store, b"one")
    await advance(300)

    assert await store.read_expired(KEY, OPTIONS, OPTIONS.served_seconds) is None


async def test_an_expired_answer_is_read_up_to_the_age_that_the_caller_accepts(
    store: CacheStore, advance: Advance
):
    await fill(store, b"one")  # without revalidate_seconds
    await advance(1000)

    expired = await store.read_expired(KEY, OPTIONS, OPTIONS.stale_seconds)
    assert expired is not None
    assert expired.body == b"one"
    assert expired.age_seconds == pytest.approx(1000, abs=LEEWAY_SECONDS)
    assert await store.read_expired(KEY, OPTIONS, 900) is None

    await advance(2600)
    assert await store.read_expired(KEY, OPTIONS, OPTIONS.stale_seconds) is None


async def test_an_invalidated_answer_is_not_read_at_any_accepted_age(store: CacheStore, advance: Advance):
    await fill(store, b"one")
    await advance(400)
    await store.invalidate([KEY])

    assert await store.read_expired(KEY, OPTIONS, OPTIONS.stale_seconds) is None
    assert await store.read_last_good(KEY, OPTIONS) is not None


async def test_an_invalidated_answer_is_not_read_as_an_expired_one(store: CacheStore, advance: Advance):
    await fill(store, b"one", REVALIDATING)
    await store.invalidate([KEY])
    await advance(300)

    assert await store.read_expired(KEY, REVALIDATING, REVALIDATING.served_seconds) is None


async def test_a_shortened_ttl_applies_to_stored_entries(store: CacheStore, advance: Advance):
    await fill(store, b"one")
    await advance(100)
    shorter = CacheOptions(ttl_seconds=60, stale_seconds=0)

    assert await store.read(KEY, shorter) is None
    assert await store.read_last_good(KEY, shorter) is None
    assert await store.take_lease(KEY, "token", ANY_FRESH, shorter) is Lease.TAKEN


async def test_of_many_concurrent_callers_one_gets_the_lease(store: CacheStore):
    replies = await asyncio.gather(*(store.take_lease(KEY, f"{n}", ANY_FRESH, OPTIONS) for n in range(20)))

    assert sorted(reply.name for reply in replies) == ["HELD"] * 19 + ["TAKEN"]


async def test_a_lease_expires(store: CacheStore, advance: Advance):
    await store.take_lease(KEY, "dead", ANY_FRESH, OPTIONS)
    assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.HELD

    await advance(100)

    assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.TAKEN


async def test_after_a_clock_set_back_a_dead_holder_loses_its_lease(
    store: CacheStore, set_clock_back: Advance
):
    """In the past, after a clock set back by an hour no worker computed for an hour."""
    await store.take_lease(KEY, "dead", ANY_FRESH, OPTIONS)
    await set_clock_back(3600)
    taken_over = await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.TAKEN
    assert taken_over == isinstance(
        store, RedisCacheStore
    )  # the store in memory uses a clock that is never set back
    assert await store.take_lease(KEY, "another", ANY_FRESH, OPTIONS) is Lease.HELD


async def test_an_entry_from_before_a_clock_set_back_is_not_served_for_longer(
    store: CacheStore, set_clock_back: Advance, advance: Advance
):
    await fill(store, b"one")
    await set_clock_back(3600)
    await advance(300)
    assert await store.read(KEY, OPTIONS) is None
    await fill(store, b"two")
    entry = await store.read(KEY, OPTIONS)
    assert entry is not None
    assert entry.body == b"two"


async def test_a_computation_during_which_the_clock_is_set_back_has_no_negative_cost(
    store: CacheStore, set_clock_back: Advance
):
    await store.take_lease(KEY, "token", ANY_FRESH, OPTIONS)
    await set_clock_back(3600)
    await store.fill(KEY, "token", b"one", OPTIONS)
    entry = await store.read(KEY, OPTIONS)
    assert entry is not None
    assert entry.cost_seconds >= 0


async def test_a_renewed_lease_does_not_expire(store: CacheStore, advance: Advance):
    await store.take_lease(KEY, "holder", ANY_FRESH, OPTIONS)
    for _ in range(3):
        await advance(60)
        assert await store.renew(KEY, "holder", OPTIONS)
        assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.HELD

    await advance(100)

    assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.TAKEN


@pytest.mark.parametrize("renewals", [1, 3])
async def test_a_renewed_lease_keeps_its_holder_and_its_start(
    store: CacheStore, advance: Advance, renewals: int
):
    await store.take_lease(KEY, "holder", ANY_FRESH, OPTIONS)
    for _ in range(renewals):
        await advance(60)
        assert not await store.renew(KEY, "other", OPTIONS)
        assert await store.renew(KEY, "holder", OPTIONS)
    assert not await store.release(KEY, "other")
    assert not await store.fill(KEY, "other", b"no", OPTIONS)
    await advance(20)

    assert await store.fill(KEY, "holder", b"one", OPTIONS)

    entry = await store.read(KEY, OPTIONS)
    assert entry is not None
    assert entry.cost_seconds == pytest.approx(60 * renewals + 20, abs=LEEWAY_SECONDS)


async def test_a_renewed_lease_can_be_released(store: CacheStore):
    await store.take_lease(KEY, "holder", ANY_FRESH, OPTIONS)
    await store.renew(KEY, "holder", OPTIONS)
    assert await store.release(KEY, "holder")
    assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.TAKEN


async def test_a_lost_lease_is_not_renewed(store: CacheStore, advance: Advance):
    assert not await store.renew(KEY, "nobody", OPTIONS)
    await store.take_lease(KEY, "dead", ANY_FRESH, OPTIONS)
    await advance(100)
    assert not await store.renew(KEY, "dead", OPTIONS)
    await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS)
    assert not await store.renew(KEY, "dead", OPTIONS)
    await store.invalidate([KEY])
    assert not await store.renew(KEY, "next", OPTIONS)


async def test_a_lease_is_not_given_if_the_entry_is_new_enough(store: CacheStore, advance: Advance):
    await fill(store, b"one")
    await advance(100)

    found = await store.take_lease(KEY, "token", ANY_FRESH, OPTIONS)
    assert isinstance(found, Entry)
    assert found.body == b"one"
    assert isinstance(await store.take_lease(KEY, "token", 100 + LEEWAY_SECONDS, OPTIONS), Entry)
    assert await store.take_lease(KEY, "token", 100, OPTIONS) is Lease.TAKEN


async def test_the_age_of_an_entry_counts_from_the_start_of_its_computation(
    store: CacheStore, advance: Advance
):
    await store.take_lease(KEY, "slow", ANY_FRESH, OPTIONS)
    await advance(60)
    await store.fill(KEY, "slow", b"one", OPTIONS)
    await advance(40)

    assert isinstance(await store.take_lease(KEY, "next", 100 + LEEWAY_SECONDS, OPTIONS), Entry)
    assert await store.take_lease(KEY, "next", 100, OPTIONS) is Lease.TAKEN


async def test_an_entry_of_a_computation_longer_than_its_ttl_is_fresh(store: CacheStore, advance: Advance):
    brief = CacheOptions(ttl_seconds=60, lease_seconds=200)
    await store.take_lease(KEY, "slow", ANY_FRESH, brief)
    await advance(150)
    await store.fill(KEY, "slow", b"one", brief)

    assert isinstance(await store.take_lease(KEY, "next", ANY_FRESH, brief), Entry)


async def test_filling_ends_the_lease(store: CacheStore):
    assert await fill(store, b"one")

    assert await store.take_lease(KEY, "next", 0, OPTIONS) is Lease.TAKEN


async def test_a_lost_lease_stores_nothing(store: CacheStore, advance: Advance):
    await store.take_lease(KEY, "slow", ANY_FRESH, OPTIONS)
    await advance(100)
    assert not await store.fill(KEY, "slow", b"late", OPTIONS)

    await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS)
    assert not await store.fill(KEY, "slow", b"late", OPTIONS)

    assert await store.read(KEY, OPTIONS) is None
    assert await store.read_last_good(KEY, OPTIONS) is None


async def test_only_its_holder_can_release_a_lease(store: CacheStore):
    await store.take_lease(KEY, "holder", ANY_FRESH, OPTIONS)

    assert not await store.release(KEY, "other")
    assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.HELD

    assert await store.release(KEY, "holder")
    assert not await store.release(KEY, "holder")
    assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.TAKEN


async def test_an_invalidation_drops_entries_and_leases_but_not_the_last_good_copy(store: CacheStore):
    await fill(store, b"one")
    await store.take_lease(KEY, "before", 0, OPTIONS)
    await store.take_lease("summary:cpu:all", "before", 0, OPTIONS)

    await store.invalidate([KEY, "summary:cpu:all"])

    assert await store.read(KEY, OPTIONS) is None
    assert not await store.fill(KEY, "before", b"old", OPTIONS)
    assert not await store.fill("summary:cpu:all", "before", b"old", OPTIONS)
    assert await store.read_last_good(KEY, OPTIONS) is not None


async def test_an_invalidation_can_drop_the_last_good_copies_too(store: CacheStore):
    await fill(store, b"one")
    await store.invalidate([KEY], last_good=True)
    assert await store.read_last_good(KEY, OPTIONS) is None
    assert await store.read(KEY, OPTIONS) is None


async def test_an_invalidation_without_entries_is_no_error(store: CacheStore):
    await store.invalidate([])


async def test_a_write_during_another_workers_refresh_is_seen_by_the_next_one(
    store: CacheStore, advance: Advance, clock: FakeClock
):
    written, under_way, gate = b"old", asyncio.Event(), asyncio.Event()

    async def compute() -> bytes:
        read = written
        under_way.set()
        await gate.wait()
        return read

    first, second = (ReadThroughCache(store, OPTIONS, clock, SystemRandomizer(1)) for _ in range(2))
    before = asyncio.create_task(first.get(KEY, compute, refresh=True))
    await under_way.wait()
    await advance(10)
    written = b"new"
    after = asyncio.create_task(second.get(KEY, compute, refresh=True))
    while not clock.sleeps:  # until the second waits for the first
        await asyncio.sleep(0)
    await advance(5)
    gate.set()
    assert (await before).body == b"old"

    await clock.advance(POLL_INTERVAL_SECONDS)

    assert (await after).body == b"new"


class TestInRedis:
    @pytest.fixture
    async def store(self, redis_link: RedisLink) -> BatchedCacheStore:
        return BatchedCacheStore(redis_link)

    async def test_the_key_shows_the_answer_its_ttl_and_can_be_deleted(
        self, store: BatchedCacheStore, redis_server: RedisServer
    ):
        await fill(store, b'{"count":1}')

        with redis_server.connect() as outside:
            assert outside.get(KEY) == '{"count":1}'
            assert 300 - LEEWAY_SECONDS < outside.ttl(KEY) <= 300
            outside.delete(KEY)

        assert await store.read(KEY, OPTIONS) is None
        assert await store.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.TAKEN

    async def test_a_key_deleted_by_hand_is_a_miss(self, store: BatchedCacheStore, redis_server: RedisServer):
        await fill(store, b"one", REVALIDATING)

        with redis_server.connect() as outside:
            assert 300 - LEEWAY_SECONDS < outside.ttl(KEY) <= 300
            outside.delete(KEY)

        assert await store.read_expired(KEY, REVALIDATING, REVALIDATING.served_seconds) is None

    async def test_every_key_has_an_expiry(self, store: BatchedCacheStore, redis_server: RedisServer):
        await fill(store, b"one")
        await store.take_lease(KEY, "token", 0, OPTIONS)

        with redis_server.connect() as outside:
            keys = outside.keys()
            assert set(keys) == {KEY, *(f"{{{KEY}}}:{part}" for part in ("cost", "last-good", "lease"))}
            assert all(outside.ttl(key) > 0 for key in keys)

    async def test_a_read_shares_a_round_trip_with_the_limiters_decision(
        self, store: BatchedCacheStore, redis_link: RedisLink
    ):
        assert await fill(store, b"body")
        limiter = BatchedRateLimiter("sliding_window_log", Quota(10, 60), redis_link, SystemClock())
        await limiter.hit("client")  # loads the script into Redis
        before = redis_link.round_trips

        reading = store.read(KEY, OPTIONS)
        await limiter.hit("client")
        entry = await reading

        assert entry is not None
        assert entry.body == b"body"
        assert redis_link.round_trips == before + 1

    async def test_the_reads_of_one_tick_are_one_command(
        self, store: BatchedCacheStore, redis_link: RedisLink
    ):
        assert await fill(store, b"body")
        await redis_link.send("SET", "other", b"another", "PX", 60_000)
        before = await calls(redis_link, "mget")

        entries = await asyncio.gather(*(store.read(key, OPTIONS) for key in (KEY, "none", "other", KEY)))

        assert [entry and entry.body for entry in entries] == [b"body", None, b"another", b"body"]
        assert await calls(redis_link, "mget") == before + 1

    async def test_a_failed_read_need_not_be_awaited(self, caplog):
        link = RedisLink(connect(RedisAddress("redis://127.0.0.1:1")), SystemClock())
        BatchedCacheStore(link).read(KEY, OPTIONS)
        await asyncio.sleep(0)
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
        await link.aclose()
        gc.collect()
        assert "never" not in caplog.text

    async def test_two_workers_compute_once(self, store: BatchedCacheStore, redis_server: RedisServer):
        link = RedisLink(connect(RedisAddress(redis_server.url)), SystemClock())
        begun = 0

        async def compute() -> bytes:
            nonlocal begun
            begun += 1
            await link.send_all([("PING",)])
            return b"one"

        workers = [
            ReadThroughCache(each, OPTIONS, SystemClock(), SystemRandomizer(1))
            for each in (store, BatchedCacheStore(link))
        ]
        answers = await asyncio.gather(*(worker.get(KEY, compute) for worker in workers for _ in range(20)))
        await link.aclose()

        assert {answer.body for answer in answers} == {b"one"}
        assert begun == 1

    async def test_an_age_within_the_precision_of_redis_counts_as_too_old(self, store: BatchedCacheStore):
        await fill(store, b"one")

        assert await store.take_lease(KEY, "next", 0.0009, OPTIONS) is Lease.TAKEN

    async def test_a_foreign_value_under_the_key_is_a_miss_and_logged(
        self, store: BatchedCacheStore, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ):
        with redis_server.connect() as outside:
            outside.rpush(KEY, "not an answer")
        cache = ReadThroughCache(store, OPTIONS, SystemClock(), SystemRandomizer(1))

        async def compute() -> bytes:
            return b"one"

        with caplog.at_level(logging.WARNING):
            answer = await cache.get(KEY, compute)

        assert answer.body == b"one"
        assert "cache_refused" in {record.message for record in caplog.records}

    async def test_a_foreign_value_as_the_cost_of_an_answer_is_ignored(
        self, store: BatchedCacheStore, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ):
        for key in (KEY, "another"):
            await store.take_lease(key, "mine", math.inf, OPTIONS)
            await store.fill(key, "mine", b"an answer", OPTIONS)
        with redis_server.connect() as outside:
            outside.set(f"{{{KEY}}}:cost", "garbage")
        entries = await asyncio.gather(store.read(KEY, OPTIONS), store.read("another", OPTIONS))
        assert [entry.body for entry in entries if entry] == [b"an answer"] * 2
        assert [record.message for record in caplog.records] == ["cache_refused"]

    @pytest.mark.parametrize("ending", [b"one", ValueError("no")], ids=["filled", "failed"])
    @pytest.mark.parametrize("hiccup", ["killed", "frozen"])
    async def test_a_lease_is_given_back_when_redis_is_available_again(
        self, own_redis: RedisServer, hiccup: str, ending: bytes | Exception
    ):
        links = [RedisLink(connect(RedisAddress(own_redis.url)), SystemClock()) for _ in range(2)]
        ours, theirs = (BatchedCacheStore(link) for link in links)
        cache = ReadThroughCache(ours, OPTIONS, SystemClock(), SystemRandomizer(1))  # a lease of 100 s

        async def compute() -> bytes:
            assert await theirs.take_lease(KEY, "next", ANY_FRESH, OPTIONS) is Lease.HELD
            own_redis.kill() if hiccup == "killed" else own_redis.freeze()
            if isinstance(ending, Exception):
                raise ending
            return ending

        (outcome,) = await asyncio.gather(cache.get(KEY, compute), return_exceptions=True)
        assert outcome is ending or outcome.body == ending
        own_redis.start() if hiccup == "killed" else own_redis.thaw()

        async with asyncio.timeout(20):
            while True:
                found = await theirs.take_lease(KEY, "next", ANY_FRESH, OPTIONS)
                if found is not Lease.HELD and links[1].is_up:
                    break
                await asyncio.sleep(0.01)
        for link in links:
            await link.aclose()

    async def test_during_an_outage_no_call_waits_for_its_end(self, own_redis: RedisServer):
        link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
        store = BatchedCacheStore(link)
        own_redis.kill()
        for number in range(50):
            await store.take_lease(KEY, f"{number}", ANY_FRESH, OPTIONS)
            await store.fill(KEY, f"{number}", b"one", OPTIONS)
        assert len(store._background) <= 1, "the time of the lease that was requested first"
        assert store._lease_tokens == set()
        await link.aclose()

    async def test_while_redis_is_unavailable_every_caller_computes_and_nothing_fails(
        self, own_redis: RedisServer
    ):
        link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
        store = BatchedCacheStore(link)
        cache = ReadThroughCache(store, OPTIONS, SystemClock(), SystemRandomizer(1))
        own_redis.kill()
        begun = 0

        async def compute() -> bytes:
            nonlocal begun
            begun += 1
            return b"one"

        async def fail() -> bytes:
            raise ValueError("no")

        for _ in range(2):
            answer = await cache.get(KEY, compute)
            assert (answer.body, answer.outcome) == (b"one", "miss")
        await cache.invalidate([KEY])
        with pytest.raises(ValueError, match="no"):
            await cache.get(KEY, fail)

        assert begun == 2
        await link.aclose()
