"""When calls begin that other projects space out, and when ours begin.

A vector's calls are the seconds at which they arrive. Both of our policies that space calls run each vector:
the paced queue, and a rate limit of one unit an interval.
"""

import asyncio

import pytest

from src.resilience.paced_queue.memory import MemoryPaceStore
from src.resilience.paced_queue.options import PacedQueueOptions
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.policy import Policy
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota, RateLimitOptions
from src.resilience.rate_limiter.policy import RateLimit
from tests.support.clock import FakeClock

VECTORS = {
    "failsafe-go, TestSmoothAcquirePermits, 500 ms": (
        0.5,
        [*[0.0] * 7, *[0.8] * 3, 2.3, *[3.5] * 3],
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5],
    ),
    # Where ours differ: failsafe-go's intervals lie on a grid from its start, so a call at 9.1 s takes the
    # interval from 9.0 s and the next one begins at 9.5 s, 0.4 s later. Ours keep the whole interval.
    "failsafe-go, TestSmoothAcquirePermits, 500 ms, after a rest": (
        0.5,
        [*[0.0] * 3, *[9.1] * 3, 11.0],
        [0.0, 0.5, 1.0, 9.1, 9.6, 10.1, 11.0],
    ),
    "failsafe-go, TestSmoothAcquirePermits, 200 ms": (
        0.2,
        [*[0.0] * 3, *[0.55] * 2],
        [0.0, 0.2, 0.4, 0.6, 0.8],
    ),
    "failsafe-go, TestSmoothAcquireInitialStats": (0.1, [0.0, 0.0, 0.1, 0.1], [0.0, 0.1, 0.2, 0.3]),
    "Guava, documentation of RateLimiter.create(2.0)": (0.5, [0.0] * 4, [0.0, 0.5, 1.0, 1.5]),
    # Guava also saves up to a second of unused permits for a burst. A quota of several units does that here.
    "Guava, RateLimiter.create(5.0) after a rest": (0.2, [0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.2, 1.4]),
    "Bottleneck, documentation of minTime: 333": (0.333, [0.0] * 4, [0.0, 0.333, 0.666, 0.999]),
    "nginx, documentation of limit_req with rate=10r/s and burst=20": (
        0.1,
        [*[0.0] * 3, 0.25],
        [0.0, 0.1, 0.2, 0.3],
    ),
    "uber-go/ratelimit, documentation of New(100, WithoutSlack)": (
        0.01,
        [0.0] * 5,
        [0.0, 0.01, 0.02, 0.03, 0.04],
    ),
}


def paced_queue(interval: float, clock: FakeClock) -> Policy:
    options = PacedQueueOptions(interval_seconds=interval)
    return PacedQueue(options, MemoryPaceStore(options, clock), clock)


def rate_limit(interval: float, clock: FakeClock) -> Policy:
    limiter = memory_rate_limiter("leaky_bucket", Quota(1, interval), clock)
    return RateLimit(limiter, RateLimitOptions("vector", max_wait_seconds=60), clock)


@pytest.mark.parametrize("make", [paced_queue, rate_limit])
@pytest.mark.parametrize(("interval", "arrivals", "begins"), VECTORS.values(), ids=VECTORS.keys())
async def test_calls_begin_as_in_the_source(
    clock: FakeClock, make, interval: float, arrivals: list[float], begins: list[float]
) -> None:
    policy, begun = make(interval, clock), []

    async def call() -> None:
        begun.append(clock.monotonic())

    async def arrive(seconds: float) -> None:
        await clock.sleep(seconds)
        await policy.run(call)

    await clock.drive(asyncio.gather(*(arrive(seconds) for seconds in arrivals)))
    assert begun == pytest.approx(begins, abs=1e-5)
