"""The time for which a stale answer may be served by RFC 5861 and RFC 9111, and is served by the cache.

RFC 5861, "HTTP Cache-Control Extensions for Stale Content", sections 3.1 and 4.1. The cache's `ttl_seconds`
is `max-age`, `revalidate_seconds` is `stale-while-revalidate`, and `stale_seconds` is `max-age` plus
`stale-if-error`.
What RFC 9111 says of HTTP itself (`Age`, `no-store`, `must-revalidate`) concerns the proxy:
`tests/unit/services/test_proxy_caching.py`.
"""

import math

import pytest

from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.policy import ReadThroughCache
from src.resilience.cache.store import Entry
from src.resilience.clock import SystemRandomizer
from tests.support.clock import FakeClock, FakeRandomizer, settle

DRAWS = 20_000


@pytest.fixture
def cache(clock: FakeClock):
    def make(**options: float) -> ReadThroughCache:
        return ReadThroughCache(
            MemoryCacheStore(clock), CacheOptions(early_refresh_beta=0.0, **options), clock, FakeRandomizer()
        )

    return make


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
async def test_stale_while_revalidate(cache, clock: FakeClock, age: float, outcome: str) -> None:
    """RFC 5861, 3.1: `max-age=600, stale-while-revalidate=30`."""
    cached = cache(ttl_seconds=600, revalidate_seconds=30, stale_seconds=0)
    compute = computation(b"old", b"new")
    await cached.get("key", compute)
    clock.jump(age)
    answer = await cached.get("key", compute)
    assert answer.outcome == outcome
    assert answer.body == (b"new" if outcome == "miss" else b"old")
    await settle()
    assert (await cached.get("key", compute)).body == (b"old" if outcome == "hit" else b"new")


@pytest.mark.parametrize(
    ("age", "outcome"), [(599.9, "hit"), (600.1, "stale"), (1_799.9, "stale"), (1_800.1, None)]
)
async def test_stale_if_error(cache, clock: FakeClock, age: float, outcome: str | None) -> None:
    """RFC 5861, 4.1: `max-age=600, stale-if-error=1200`; at 900 s the stale answer, at 1,900 s the error."""
    cached = cache(ttl_seconds=600, stale_seconds=1_800)
    compute = computation(b"old", ConnectionError("500 Internal Server Error"))
    await cached.get("key", compute)
    clock.jump(age)
    if outcome is None:
        with pytest.raises(ConnectionError):
            await cached.get("key", compute)
    else:
        answer = await cached.get("key", compute)
        assert (answer.outcome, answer.body) == (outcome, b"old")
        assert answer.age_seconds == pytest.approx(age)


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
