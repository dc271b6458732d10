"""The time for which a stale answer may be served by RFC 5861 and RFC 9111, and is served by the cache.

RFC 5861, "HTTP Cache-Control Extensions for Stale Content", sections 3.1 and 4.1. The cache's `ttl_seconds`
is `max-age`, `revalidate_seconds` is `stale-while-revalidate`, and `stale_seconds` is `max-age` plus
`stale-if-error`.
What RFC 9111 says of HTTP itself (`Age`, `no-store`, `must-revalidate`) concerns the proxy:
`tests/unit/services/test_proxy_caching.py`.
"""

import asyncio
import math

import pytest

from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.policy import ReadThroughCache
from src.resilience.cache.redis import RedisCacheStore
from src.resilience.cache.store import Entry
from src.resilience.clock import SystemRandomizer
from src.storage.redis.link import RedisLink
from tests.contract.conftest import Advance
from tests.support.clock import FakeClock, FakeRandomizer, settle

DRAWS = 20_000

SCALE = 100
"""Every time is multiplied by it: Redis' own clock goes on while a test runs."""


@pytest.fixture
def cache(link: RedisLink | None, clock: FakeClock):
    def make(**seconds: float) -> ReadThroughCache:
        options = CacheOptions(
            early_refresh_beta=0.0, **{name: value * SCALE for name, value in seconds.items()}
        )
        store = MemoryCacheStore(clock) if link is None else RedisCacheStore(link)
        return ReadThroughCache(store, options, clock, FakeRandomizer())

    return make


@pytest.fixture
def memory_cache(clock: FakeClock) -> ReadThroughCache:
    return ReadThroughCache(MemoryCacheStore(clock), CacheOptions(stale_seconds=0), clock, FakeRandomizer())


def computation(*bodies: bytes | Exception):
    """Return a computation that returns the bodies in order, and then repeats the last one."""
    left = list(bodies)

    async def compute() -> bytes:
        body = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(body, Exception):
            raise body
        return body

    return compute


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (0.0, "hit"),
        (599.9, "hit"),
        (600.1, "updating"),
        (629.9, "updating"),
        (630.1, "miss"),
        (10_000.0, "miss"),
    ],
)
async def test_stale_while_revalidate(cache, advance: Advance, age: float, outcome: str) -> None:
    """RFC 5861, 3.1: `max-age=600, stale-while-revalidate=30`."""
    cached = cache(ttl_seconds=600, revalidate_seconds=30, stale_seconds=0)
    compute = computation(b"old", b"new")
    await cached.get("key", compute)
    await advance(age * SCALE)
    answer = await cached.get("key", compute)
    assert answer.outcome == outcome
    assert answer.body == (b"new" if outcome == "miss" else b"old")
    async with asyncio.timeout(30):
        while (answer := await cached.get("key", compute)).outcome != "hit":
            await asyncio.sleep(0)
    assert answer.body == (b"old" if outcome == "hit" else b"new")


@pytest.mark.parametrize(
    ("age", "outcome"), [(599.9, "hit"), (600.1, "stale"), (1_799.9, "stale"), (1_800.1, None)]
)
async def test_stale_if_error(cache, advance: Advance, age: float, outcome: str | None) -> None:
    """RFC 5861, 4.1: `max-age=600, stale-if-error=1200`; at 900 s the stale answer, at 1,900 s the error."""
    cached = cache(ttl_seconds=600, stale_seconds=1_800)
    compute = computation(b"old", ConnectionError("500 Internal Server Error"))
    await cached.get("key", compute)
    await advance(age * SCALE)
    if outcome is None:
        with pytest.raises(ConnectionError):
            await cached.get("key", compute)
    else:
        answer = await cached.get("key", compute)
        assert (answer.outcome, answer.body) == (outcome, b"old")
        assert answer.age_seconds / SCALE == pytest.approx(age, abs=0.1)


@pytest.mark.parametrize(("beta", "remaining"), [(1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (0.5, 1.0)])
def test_xfetch_refreshes_early_with_the_probability_of_the_paper(
    clock, beta: float, remaining: float
) -> None:
    """Vattani et al., PVLDB 8(8), 2015: of cost δ, at τ before the expiry, with odds of exp(-τ / (δ · β))."""
    cost = 1.5
    options = CacheOptions(early_refresh_beta=beta)
    cache = ReadThroughCache(MemoryCacheStore(clock), options, clock, SystemRandomizer(seed=1))
    entry = Entry(b"x", age_seconds=0.0, remaining_seconds=remaining, cost_seconds=cost)
    early = sum(cache._is_due_early(entry) for _ in range(DRAWS))
    assert early / DRAWS == pytest.approx(math.exp(-remaining / (cost * beta)), rel=0.05)


@pytest.mark.parametrize("callers", [1, 2, 10])
@pytest.mark.parametrize("result", [b"bar", LookupError("some error")], ids=["TestDo", "TestDoErr"])
async def test_calls_of_a_key_at_once_share_one_computation(memory_cache, callers: int, result) -> None:
    """golang.org/x/sync/singleflight, TestDo, TestDoErr and TestDoDupSuppress; groupcache has the same."""
    computations = 0

    async def compute() -> bytes:
        nonlocal computations
        computations += 1
        await settle()
        if isinstance(result, Exception):
            raise result
        return result

    ended = await asyncio.gather(
        *(memory_cache.get("key", compute) for _ in range(callers)), return_exceptions=True
    )
    assert [getattr(one, "body", one) for one in ended] == [result] * callers
    assert computations == 1


async def test_a_key_that_was_forgotten_is_computed_again(memory_cache) -> None:
    """singleflight, TestForget: a call after `Forget` does not join the computation under way."""
    first_may_end = asyncio.Event()

    async def first() -> bytes:
        await first_may_end.wait()
        return b"first"

    earlier = asyncio.create_task(memory_cache.get("key", first))
    await settle()
    await memory_cache.invalidate(["key"])
    assert (await memory_cache.get("key", computation(b"second"))).body == b"second"
    first_may_end.set()
    assert (await earlier).body == b"first"
    assert (await memory_cache.get("key", first)).body == b"second"
