"""The decisions of rate limiters of other projects and of this library, in the same situations.

Each vector names its source: a test suite or a page. The rows use the terms of this library: a window of
`limit` units. If this library differs, the row has its decision, and `differs` has the other with a reason.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.redis import RedisRateLimiter
from src.resilience.rate_limiter.store import RateLimiter
from tests.contract.conftest import TEST_TIME, StoreTime

SCALE = 100
"""Every time is multiplied by it: Redis also expires keys by its own clock, which no test moves."""


class Row(NamedTuple):
    """A hit, or a peek if `spends` is False, and the decision.

    Attributes:
        at: Seconds since the vector began.
        cost: Units.
        allowed: Whether the hit is allowed; None if the cost is an error, since it can never be allowed.
        remaining: Units that are left; None: not compared.
        reset_after: Seconds until the whole limit is free; None: not compared.
        retry_after: Seconds until the same hit would be allowed; None: not compared.
    """

    at: float
    cost: int
    allowed: bool | None
    remaining: int | None = None
    reset_after: float | None = None
    retry_after: float | None = None
    spends: bool = True


@dataclass(frozen=True)
class Vector:
    """Rows for limiters of one quota.

    Attributes:
        source: The project and the test or page.
        algorithms: Ours that decide alike.
        differs: What the source does instead, and why ours does not; None where all agree.
    """

    source: str
    algorithms: tuple[Algorithm, ...]
    quota: Quota
    rows: list[Row]
    differs: str | None = None


BUCKETS: tuple[Algorithm, ...] = ("token_bucket", "leaky_bucket")

VECTORS = {
    "GCRA, five a second's burst": Vector(
        "redis-cell, it_rate_limits; throttled, TestRateLimit",
        BUCKETS,
        Quota(limit=5, window_seconds=5),
        [
            Row(0.0, 1, True, 4, 1.0),
            Row(0.0, 1, True, 3, 2.0),
            Row(0.0, 1, True, 2, 3.0),
            Row(0.0, 1, True, 1, 4.0),
            Row(0.0, 1, True, 0, 5.0),
            Row(0.0, 1, False, 0, 5.0, 1.0),
            Row(3.0, 1, True, 2, 3.0),
            Row(3.1, 1, True, 1, 3.9),
            Row(4.0, 1, True, 1, 4.0),
            Row(8.0, 1, True, 4, 1.0),
            Row(9.5, 1, True, 4, 1.0),
            Row(9.5, 1, True, 4, 1.0, spends=False),
            Row(9.5, 2, True, 2, 3.0),
            Row(9.5, 5, False, 2, 3.0, 3.0),
        ],
    ),
    "GCRA, more than the limit at once": Vector(
        "redis-cell, it_rate_limits; throttled, TestRateLimit, cases 0 and 15",
        BUCKETS,
        Quota(limit=5, window_seconds=5),
        [Row(0.0, 6, None), Row(0.0, 1, True, 4, 1.0)],
        differs="The source answers that it is limited, with no time to retry. Ours raises ValueError, since "
        "waiting never helps.",
    ),
    "GCRA, a period of milliseconds": Vector(
        "throttled, TestRateLimitCustomPeriod",
        BUCKETS,
        Quota(limit=1, window_seconds=0.01 / 3),
        [
            Row(0.0, 1, True, 0),
            Row(0.0, 1, False, 0),
            Row(0.01, 1, True, 0),
            Row(0.011, 1, False, 0),
            Row(0.02, 1, True, 0),
        ],
    ),
    "token bucket, a burst of one, ten a second": Vector(
        "golang.org/x/time/rate, TestLimiterBurst1",
        BUCKETS,
        Quota(limit=1, window_seconds=0.1),
        [
            Row(0.0, 1, True, 0),
            Row(0.0, 1, False, 0),
            Row(0.0, 1, False, 0),
            Row(0.1, 1, True, 0),
            Row(0.1, 1, False, 0),
            Row(0.2, 2, None),
            Row(0.2, 1, True, 0),
            Row(0.2, 1, False, 0),
        ],
        differs="There a hit of two units is rejected. Ours raises ValueError, since waiting never helps.",
    ),
    "token bucket, a burst of three, ten a second": Vector(
        "golang.org/x/time/rate, TestLimiterBurst3",
        BUCKETS,
        Quota(limit=3, window_seconds=0.3),
        [
            Row(0.0, 2, True, 1),
            Row(0.0, 2, False, 1),
            Row(0.0, 1, True, 0),
            Row(0.0, 1, False, 0),
            Row(0.1, 4, None),
            Row(0.2, 1, True, 1),
            Row(0.3, 1, True, 1),
            Row(0.4, 1, True, 1),
            Row(0.4, 1, True, 0),
            Row(0.4, 1, False, 0),
            Row(0.9, 3, True, 0),
        ],
        differs="There a hit of four units is rejected, and one of no units is allowed. Ours raises "
        "ValueError.",
    ),
    "leaky bucket, a burst of five beside the rate": Vector(
        "nginx, documentation of limit_req with rate=1r/s burst=5 nodelay",
        BUCKETS,
        Quota(limit=6, window_seconds=6),
        [
            *(Row(0.0, 1, True, 5 - number) for number in range(6)),
            Row(0.0, 1, False, 0, 6.0, 1.0),
            Row(1.0, 1, True, 0),
            Row(1.5, 1, False, 0, 5.5, 0.5),
            Row(7.0, 6, True, 0),
        ],
    ),
    "leaky bucket, a burst up to the capacity and one each interval": Vector(
        "aiolimiter, documentation of AsyncLimiter(4, 8)",
        BUCKETS,
        Quota(limit=4, window_seconds=8),
        [
            *(Row(0.0, 1, True, 3 - number) for number in range(4)),
            Row(0.0, 1, False, 0, 8.0, 2.0),
            Row(2.0, 1, True, 0),
            Row(2.0, 1, False, 0, 8.0, 2.0),
            Row(4.0, 1, True, 0),
            Row(12.0, 4, True, 0),
        ],
    ),
    "fixed window, a cycle of the limiter": Vector(
        "resilience4j, documentation of limitRefreshPeriod and limitForPeriod",
        ("fixed_window",),
        Quota(limit=5, window_seconds=10),
        [
            *(Row(0.0, 1, True, 4 - number) for number in range(5)),
            Row(9.9, 1, False, 0, 0.1, 0.1),
            Row(10.0, 5, True, 0, 10.0),
        ],
    ),
    "fixed window, twice the limit around its end": Vector(
        "Cloudflare, 'How we built rate limiting capable of scaling to millions of domains', on counters",
        ("fixed_window",),
        Quota(limit=50, window_seconds=60),
        [Row(0.0, 1, True, 49), Row(59.0, 49, True, 0), Row(60.0, 50, True, 0)],
    ),
    "sliding window log, never more than the limit in any window": Vector(
        "Figma, 'An alternative approach to rate limiting'",
        ("sliding_window_log",),
        Quota(limit=2, window_seconds=60),
        [
            Row(10.0, 1, True, 1),
            Row(45.0, 1, True, 0),
            Row(65.0, 1, False, 0, 40.0, 5.0),
            Row(70.0, 1, True, 0),
            Row(104.9, 1, False, 0),
            Row(105.0, 1, True, 0),
        ],
        differs="Figma also counts the rejected requests. Ours counts what it allows, as redis-cell does.",
    ),
    "fixed window": Vector(
        "limits, test_fixed_window",
        ("fixed_window",),
        Quota(limit=10, window_seconds=2),
        [
            Row(0.0, 1, True, 10, 0.0, spends=False),
            *(Row(0.1 * number, 1, True, 9 - number) for number in range(10)),
            Row(1.0, 1, False, 0, 1.0, 1.0),
            Row(2.0, 1, True, 9, 2.0),
        ],
    ),
    "fixed window, several units": Vector(
        "limits, test_fixed_window_multiple_cost",
        ("fixed_window", "sliding_window_counter", "sliding_window_log"),
        Quota(limit=10, window_seconds=120),
        [
            Row(0.0, 5, True, 5),
            Row(0.0, 6, False, 5, spends=False),
            Row(0.0, 6, False, 5),
            Row(0.0, 5, True, 0),
        ],
    ),
    "any window, a look takes nothing": Vector(
        "limits, test_test_fixed_window, test_test_sliding_window_counter",
        ("fixed_window", "sliding_window_counter", "sliding_window_log", *BUCKETS),
        Quota(limit=2, window_seconds=3600),
        [
            Row(0.0, 1, True, 1),
            Row(0.0, 1, True, 1, spends=False),
            Row(0.0, 1, True, 0),
            Row(0.0, 1, False, 0, spends=False),
            Row(0.0, 1, False, 0),
        ],
    ),
    "moving window": Vector(
        "limits, test_moving_window",
        ("sliding_window_log",),
        Quota(limit=10, window_seconds=2),
        [
            *(Row(0.1 * number, 1, True, 9 - number) for number in range(5)),
            *(Row(1.5, 1, True, 4 - number) for number in range(5)),
            Row(1.9, 1, False, 0),
            Row(2.0, 1, True, 0),
        ],
    ),
    "moving window, when the next unit is free": Vector(
        "limits, test_moving_window_stats",
        ("sliding_window_log",),
        Quota(limit=2, window_seconds=60),
        [Row(0.0, 1, True, 1), Row(1.0, 1, True, 0), Row(2.0, 1, False, 0, 59.0, 58.0)],
        differs="limits' reset_time is the end of the oldest hit, 58 s ahead: that is our retry_after. Our "
        "reset_after is when the whole limit is free.",
    ),
    "moving window, several units": Vector(
        "limits, test_moving_window_multiple_cost",
        ("sliding_window_log",),
        Quota(limit=10, window_seconds=2),
        [
            Row(0.0, 5, True, 5),
            *(Row(1.9, 1, True, 4 - number) for number in range(4)),
            Row(1.9, 2, False, 1, spends=False),
            Row(1.9, 2, False, 1),
            Row(1.9, 1, True, 0),
            *(Row(2.0, 1, True, 4 - number) for number in range(5)),
            Row(2.0, 2, False, 0),
        ],
    ),
    "moving window, a large cost after a small one": Vector(
        "limits, test_moving_window_huge_cost",
        ("sliding_window_log",),
        Quota(limit=1_000_000, window_seconds=2),
        [Row(0.0, 1, True, 999_999), Row(1.0, 999_999, True, 0), Row(2.0, 1, True, 1, spends=False)],
    ),
    "sliding window counter, an estimate below the limit": Vector(
        "Cloudflare, 'How we built rate limiting capable of scaling to millions of domains'",
        ("sliding_window_counter",),
        Quota(limit=50, window_seconds=60),
        [
            Row(0.0, 42, True, 8),  # then 42 · ¾ + 18 = 49.5
            *(Row(75.0, 1, True) for _ in range(17)),
            Row(75.0, 1, True, 0),
            Row(75.0, 1, False, 0),
        ],
    ),
    "sliding window counter, what the previous window leaves": Vector(
        "limits, test_sliding_window_counter_previous_window",
        ("sliding_window_counter",),
        Quota(limit=5, window_seconds=1),
        [
            Row(0.0, 3, True, 2),
            Row(1.001, 1, True, 2, spends=False),
            Row(1.001, 2, True, 0),
            Row(1.001, 1, False, 0),
            Row(1.001 + 1 / 3, 1, True, 0),
        ],
        differs="limits rounds the weighted count of the previous window down, 2.997 to 2, and allows a "
        "sixth unit in the second. Ours compares the count itself with the limit.",
    ),
    "sliding window counter, all is free after two windows": Vector(
        "limits, test_sliding_window_counter_total_reset",
        ("sliding_window_counter",),
        Quota(limit=10, window_seconds=1),
        [Row(0.0, 10, True, 0), Row(0.0, 1, False, 0), Row(2.0, 1, True, 10, 0.0, spends=False)],
    ),
    "smooth rate, one unit each 500 ms": Vector(
        "failsafe-go, TestSmoothAcquirePermits",
        BUCKETS,
        Quota(limit=1, window_seconds=0.5),
        [
            Row(0.0, 1, True, 0, 0.5),
            Row(0.0, 1, False, 0, 0.5, 0.5),
            Row(0.5, 1, True, 0, 0.5),
            Row(0.8, 1, False, 0, 0.2, 0.2),
            Row(1.0, 1, True, 0, 0.5),
        ],
        differs="failsafe-go reserves permits ahead: the seventh caller at once has to wait 3 s. Our limiter "
        "returns when a unit is free, and its policy `RateLimit` keeps the queue.",
    ),
    "burst within a period": Vector(
        "failsafe-go, TestBurstyAcquirePermits",
        ("fixed_window",),
        Quota(limit=5, window_seconds=1),
        [
            Row(0.3, 3, True, 2),
            Row(0.3, 3, False, 2, 1.0, 1.0),
            Row(1.55, 5, True, 0),
            Row(2.21, 2, False, 0, 0.34, 0.34),
        ],
        differs="failsafe-go's periods begin with the limiter, ours with a key's first hit; and failsafe-go "
        "reserves units of later periods.",
    ),
}


@pytest.fixture
def make(store_time: StoreTime):
    def make(algorithm: Algorithm, quota: Quota) -> RateLimiter:
        if store_time.link is None:
            return memory_rate_limiter(algorithm, quota, store_time.clock)
        return RedisRateLimiter(algorithm, quota, store_time.link, store_time.clock, time_source=TEST_TIME)

    return make


CASES = {
    f"{name}, {algorithm}": (vector, algorithm)
    for name, vector in VECTORS.items()
    for algorithm in vector.algorithms
}


@pytest.mark.parametrize(("vector", "algorithm"), CASES.values(), ids=CASES.keys())
async def test_the_limiter_agrees_with_the_source(
    vector: Vector, algorithm: Algorithm, make, store_time: StoreTime
) -> None:
    limiter = make(algorithm, Quota(vector.quota.limit, vector.quota.window_seconds * SCALE))
    now = 0.0
    for number, row in enumerate(vector.rows):
        await store_time.advance((row.at - now) * SCALE)
        now = row.at
        ask = limiter.hit if row.spends else limiter.peek
        if row.allowed is None:
            with pytest.raises(ValueError, match="cost must be"):
                await ask("key", row.cost)
            continue
        decision = await ask("key", row.cost)
        assert decision.allowed is row.allowed, (number, row, decision)
        assert row.remaining in {None, decision.remaining}, (number, row, decision)
        for name in ("reset_after", "retry_after"):
            expected = getattr(row, name)
            actual = getattr(decision, name) / SCALE
            assert expected is None or actual == pytest.approx(expected, abs=1e-5), (number, row, decision)
