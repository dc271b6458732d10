"""Redis is silent for a short time, and the worker answers from its own memory."""

import asyncio
import time

import pytest

from src.resilience.cache.options import CacheOptions
from src.resilience.cache.recent_entries import RecentEntries
from src.resilience.cache.store import Entry
from src.resilience.clock import SystemClock
from src.resilience.rate_limiter.options import Quota
from src.resilience.redis.scripts import Script
from src.services.errors import StorageUnavailableError
from src.storage.patterns.batched_cache_store import BatchedCacheStore
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter
from src.storage.redis.batcher import BUDGET_SECONDS
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.support.api import CALM, PLENTY, metric, running_api

OPTIONS = CacheOptions()
ENTRY = Entry(b"kept", age_seconds=0, remaining_seconds=300)


@pytest.fixture
async def link(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    await link.send("PING")
    yield link
    own_redis.thaw()
    await link.aclose()


def waits(link):
    """Return the number of waits of 25 ms that the link has counted. On a busy machine they are longer."""
    return link._batcher._waits


def link_of(api):
    return api.state["is_redis_connected"].__self__


@pytest.mark.parametrize("algorithm", ["sliding_window_log", "token_bucket"])
async def test_a_cached_summary_does_not_wait_for_a_frozen_redis(own_redis, algorithm):
    async with running_api(own_redis.url, rate_limit_algorithm=algorithm, **CALM) as api:
        await api.post("/api/metrics", json=metric())
        for _ in range(2):
            hit = await api.get("/api/metrics/summary?type=cpu")
        own_redis.freeze()
        began = waits(link_of(api))
        for number in range(1, 3):
            answer = await api.get("/api/metrics/summary?type=cpu")
            assert (answer.status_code, answer.headers["x-cache"], answer.content) == (
                200,
                "HIT",
                hit.content,
            )
            assert answer.headers["x-ratelimit-remaining"] == str(118 - number)
        assert waits(link_of(api)) - began < 8  # and not after the budget of 10 ms for each of the two
        own_redis.thaw()
        answer = await api.get("/api/metrics/summary?type=cpu")
        assert answer.headers["x-ratelimit-remaining"] == "115", "Redis has counted every one"


async def test_an_invalidated_summary_is_not_served_while_redis_is_available(own_redis):
    async with running_api(own_redis.url, cache_invalidate_on_write=True, **PLENTY, **CALM) as api:
        await api.post("/api/metrics", json=metric())
        for _ in range(2):
            await api.get("/api/metrics/summary?type=cpu")
        own_redis.freeze()
        asked = asyncio.create_task(api.get("/api/metrics/summary?type=cpu"))
        await asyncio.sleep(BUDGET_SECONDS / 3)
        assert not asked.done()
        own_redis.thaw()
        assert (await asked).headers["x-cache"] == "HIT"


async def test_only_entries_that_this_worker_has_are_answered_early(link, own_redis):
    recent = RecentEntries(SystemClock(), 10_000)
    recent.put("kept", ENTRY)
    store = BatchedCacheStore(link, recent, answers_early=True)
    own_redis.freeze()
    kept, other = store.read("kept", OPTIONS), asyncio.ensure_future(store.read("other", OPTIONS))
    assert (await kept).body == b"kept"
    assert not other.done()
    own_redis.thaw()
    assert await other is None
    assert await store.read("kept", OPTIONS) is None, "Redis has no entry"


async def test_while_redis_is_silent_no_more_requests_are_admitted_than_the_quota_allows(link, own_redis):
    limiter = BatchedRateLimiter("sliding_window_log", Quota(5, 60), link, SystemClock(), answers_early=True)
    assert (await limiter.hit("known")).remaining == 4
    own_redis.freeze()
    hits = [asyncio.create_task(limiter.hit("known")) for _ in range(6)]
    stranger = asyncio.create_task(limiter.hit("stranger"))
    await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED)
    hits += [asyncio.create_task(limiter.hit("known")) for _ in range(4)]
    await asyncio.sleep(0.05)
    early = [hit.result() for hit in hits if hit.done()]
    assert [(decision.allowed, decision.remaining) for decision in early] == [
        (True, 3), (True, 2), (True, 1), (True, 0),
    ]  # fmt: skip
    assert not stranger.done(), "the worker has no recent entry for this key"
    own_redis.thaw()
    decisions = await asyncio.gather(*hits)
    assert [decision.allowed for decision in decisions] == [True] * 4 + [False] * 6
    assert (await stranger).remaining == 4


async def test_a_limiter_that_was_reset_decides_again(link, own_redis):
    limiter = BatchedRateLimiter("fixed_window", Quota(5, 60), link, SystemClock(), answers_early=True)
    await limiter.hit("known")
    await limiter.reset("known")
    own_redis.freeze()
    with pytest.raises(StorageUnavailableError):
        await limiter.hit("known")


async def test_a_busy_event_loop_does_not_count_as_silence_of_redis(link):
    silences = []
    link.on_silence(lambda: silences.append(1))
    for _ in range(10):
        asked = asyncio.create_task(link.send("ECHO", "x"))
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(0.02)  # the reply is not read in the meantime
        assert await asked == b"x"
    assert not silences


async def test_a_long_command_of_another_caller_does_not_count_as_an_outage(link):
    silences = []
    link.on_silence(lambda: silences.append(1))
    busy = Script("local n = 0 while n < 10000000 do n = n + 1 end return n")
    long = asyncio.create_task(link.run(busy, [], timeout_seconds=30))
    await asyncio.sleep(0.02)
    assert not silences, "a long command does not delay other callers"
    assert await link.send("ECHO", "x") == b"x"
    assert silences
    await long
