"""Measures the time that each policy adds to a successful call, beside other packages that do the same work.

It measures calls through each policy, and subtracts the time of a call without a policy. The policies are
measured one after another in each round, and the result is the first quartile of the rounds: other work on
the machine only makes a round slower. The patterns need only Python. The other packages are in
`bench/requirements.txt`, and a package that is not installed is omitted. Run it from the checkout::

    python -m bench.policies
    python -m bench.policies --rounds 30
"""

import argparse
import asyncio
import platform
import statistics
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from src.resilience import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Bulkhead,
    BulkheadOptions,
    CacheOptions,
    Chaos,
    ChaosOptions,
    CircuitBreaker,
    CircuitBreakerOptions,
    Fallback,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    MemoryCacheStore,
    Pipeline,
    Quota,
    RateLimit,
    RateLimitOptions,
    ReadThroughCache,
    Retry,
    RetryOptions,
    SystemClock,
    Timeout,
    always,
    memory_rate_limiter,
)
from src.resilience.adaptive_concurrency import Aimd
from src.resilience.chaos import Fault
from src.resilience.clock import SystemRandomizer
from src.resilience.policy import Policy

OURS = "src.resilience"
A_MILLION_A_SECOND = 1_000_000
THREE_ATTEMPTS = 3
WINDOW_CALLS = 100

AsyncCall = Callable[[], Awaitable[object]]
SyncCall = Callable[[], object]


async def work() -> int:
    """Return a result at once."""
    return 42


def sync_work() -> int:
    """Return a result at once, for a package without asyncio."""
    return 42


@dataclass(slots=True)
class Contestant:
    """One kind of work with one package.

    Attributes:
        work: The kind of work, a row of the table.
        package: The package, a column of the table.
        call: A call through the policy.
        sync_call: A synchronous call through the policy, for a package without asynchronous calls.
        seconds: The time of a call in each round.
    """

    work: str
    package: str
    call: AsyncCall | None = None
    sync_call: SyncCall | None = None
    seconds: list[float] = field(default_factory=list)


def ours() -> Iterator[Contestant]:
    """Yield every policy of this library. The pipeline has the order of the documentation."""
    clock, randomizer = SystemClock(), SystemRandomizer()
    in_a_row = CircuitBreakerOptions(failure_threshold=5)
    by_rate = CircuitBreakerOptions(
        failure_threshold=None,
        failure_rate_threshold=0.5,
        slow_call_rate_threshold=1.0,
        slow_call_seconds=60.0,
        window_calls=WINDOW_CALLS,
    )
    quota = Quota(A_MILLION_A_SECOND, window_seconds=1.0)
    fallback = Fallback(always(0))
    rate_limit = RateLimit(
        memory_rate_limiter("leaky_bucket", quota, clock), RateLimitOptions(key="bench"), clock
    )
    bulkhead = Bulkhead(BulkheadOptions(permits=10), clock)
    breaker = CircuitBreaker("rate", MemoryBreakerStore(clock), by_rate, clock)
    retry = Retry(RetryOptions(attempts=THREE_ATTEMPTS), clock, randomizer)
    timeout = Timeout(5.0, clock)
    policies: dict[str, Policy] = {
        "circuit breaker, in a row": CircuitBreaker("row", MemoryBreakerStore(clock), in_a_row, clock),
        "circuit breaker, by rate": breaker,
        "rate limiter, leaky bucket": rate_limit,
        "rate limiter, fixed window": RateLimit(
            memory_rate_limiter("fixed_window", quota, clock), RateLimitOptions(key="bench"), clock
        ),
        "retry": retry,
        "timeout": timeout,
        "bulkhead": bulkhead,
        "fallback": fallback,
        "adaptive concurrency": AdaptiveConcurrency(
            AdaptiveConcurrencyOptions(),
            Aimd(target_seconds=1.0),
            Bulkhead(BulkheadOptions(), clock),
            clock,
        ),
        "hedging": Hedging(HedgingOptions(delay_seconds=1.0), clock),
        "chaos": Chaos(ChaosOptions(Fault(ValueError), rate=0.0), clock, randomizer),
        "pipeline of six": Pipeline(fallback, rate_limit, bulkhead, breaker, retry, timeout),
    }
    for name, policy in policies.items():
        yield Contestant(name, OURS, partial(policy.run, work))
    yield Contestant("cache, a hit", OURS, _cache_hit())


def _cache_hit() -> AsyncCall:
    clock = SystemClock()
    cache = ReadThroughCache(MemoryCacheStore(clock), CacheOptions(), clock, SystemRandomizer())

    async def compute() -> bytes:
        return b"42"

    async def hit() -> object:
        return await cache.get("key", compute)

    return hit


def interlock_cb() -> Iterator[Contestant]:
    """Yield the policies of interlock-cb. Its breaker counts rates, and no consecutive failures."""
    import interlock  # noqa: PLC0415 -- may not be installed

    config = interlock.Config(window_size=WINDOW_CALLS)
    breaker = interlock.CircuitBreaker(name="bench", config=config)
    strategies = {
        "timeout": interlock.TimeoutStrategy(5.0),
        "bulkhead": interlock.BulkheadStrategy(10),
        "fallback": interlock.FallbackStrategy(lambda _error: 0),
    }
    yield Contestant("circuit breaker, by rate", "interlock-cb", partial(breaker.call_async, work))
    for name, strategy in strategies.items():
        yield Contestant(name, "interlock-cb", partial(strategy.execute_async, work))


def pybreaker() -> Iterator[Contestant]:
    """Yield pybreaker's breaker with synchronous calls, since its asynchronous calls need Tornado."""
    import pybreaker as package  # noqa: PLC0415 -- may not be installed

    breaker = package.CircuitBreaker(fail_max=5)
    yield Contestant("circuit breaker, in a row", "pybreaker", sync_call=partial(breaker.call, sync_work))


def aiobreaker() -> Iterator[Contestant]:
    """Yield the breaker of aiobreaker, which is a version of pybreaker for asyncio."""
    import aiobreaker as package  # noqa: PLC0415 -- may not be installed

    breaker = package.CircuitBreaker(fail_max=5)
    yield Contestant("circuit breaker, in a row", "aiobreaker", partial(breaker.call_async, work))


def purgatory() -> Iterator[Contestant]:
    """Yield purgatory's breaker, used as its documentation shows."""
    import purgatory as package  # noqa: PLC0415 -- may not be installed

    factory = package.AsyncCircuitBreakerFactory(default_threshold=5)

    async def call() -> object:
        async with await factory.get_breaker("bench"):
            return await work()

    yield Contestant("circuit breaker, in a row", "purgatory", call)


def tenacity() -> Iterator[Contestant]:
    """Yield tenacity's retry, with the same number of attempts and the same kind of wait."""
    import tenacity as package  # noqa: PLC0415 -- may not be installed

    retrying = package.AsyncRetrying(
        stop=package.stop_after_attempt(THREE_ATTEMPTS),
        wait=package.wait_random_exponential(multiplier=0.1, max=5),
    )
    yield Contestant("retry", "tenacity", partial(retrying, work))


def stamina() -> Iterator[Contestant]:
    """Yield stamina's retry, with its own waits."""
    import stamina as package  # noqa: PLC0415 -- may not be installed

    yield Contestant("retry", "stamina", package.retry(on=Exception, attempts=THREE_ATTEMPTS)(work))


def limits() -> Iterator[Contestant]:
    """Yield limits' fixed window in memory. Its moving window takes longer with each hit that it keeps."""
    import limits as package  # noqa: PLC0415 -- may not be installed
    from limits.aio.strategies import FixedWindowRateLimiter  # noqa: PLC0415 -- likewise
    from limits.storage import storage_from_string  # noqa: PLC0415 -- likewise

    limiter = FixedWindowRateLimiter(storage_from_string("async+memory://"))
    quota = package.RateLimitItemPerSecond(A_MILLION_A_SECOND)

    async def call() -> object:
        if not await limiter.hit(quota, "bench"):
            raise RuntimeError("the quota is spent")
        return await work()

    yield Contestant("rate limiter, fixed window", "limits", call)


def aiolimiter() -> Iterator[Contestant]:
    """Yield aiolimiter's leaky bucket."""
    import aiolimiter as package  # noqa: PLC0415 -- may not be installed

    limiter = package.AsyncLimiter(A_MILLION_A_SECOND, 1.0)

    async def call() -> object:
        async with limiter:
            return await work()

    yield Contestant("rate limiter, leaky bucket", "aiolimiter", call)


PEERS: dict[str, Callable[[], Iterator[Contestant]]] = {
    "interlock-cb": interlock_cb,
    "pybreaker": pybreaker,
    "aiobreaker": aiobreaker,
    "purgatory": purgatory,
    "tenacity": tenacity,
    "stamina": stamina,
    "limits": limits,
    "aiolimiter": aiolimiter,
}


async def seconds_a_call(contestant: Contestant, calls: int) -> float:
    """Return the mean time of a call of `contestant`, over `calls` calls."""
    clock = SystemClock()
    began = clock.monotonic()
    if contestant.call is not None:
        for _ in range(calls):
            await contestant.call()
    elif contestant.sync_call is not None:
        for _ in range(calls):
            contestant.sync_call()
    return (clock.monotonic() - began) / calls


def cost(contestant: Contestant) -> float:
    """Return what a call of `contestant` takes, in seconds: the first quartile of its rounds."""
    return statistics.quantiles(contestant.seconds, n=4)[0]


async def measure(calls: int, rounds: int) -> None:
    """Measure all contestants in each round, and print the table."""
    contestants = list(ours())
    packages = [OURS]
    for peer, contestants_of in PEERS.items():
        try:
            packages.append(f"{peer} {version(peer)}")
        except PackageNotFoundError:
            print(f"{peer} is left out: it is not installed")
        else:
            contestants += contestants_of()
    bare, bare_sync = Contestant("", "", work), Contestant("", "", sync_call=sync_work)
    for _ in range(rounds):
        for contestant in (bare, bare_sync, *contestants):
            contestant.seconds.append(await seconds_a_call(contestant, calls))
    bare_cost, bare_sync_cost = cost(bare), cost(bare_sync)
    cells: dict[tuple[str, str], str] = {}
    for contestant in contestants:
        base = bare_sync_cost if contestant.call is None else bare_cost
        cells[contestant.work, contestant.package] = f"{1e6 * (cost(contestant) - base):.2f}"
    where = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
    print(f"µs a call, above the {1e6 * bare_cost:.2f} µs of the bare call; {where}\n")
    print("| work |", *(f"{package} |" for package in packages))
    print("| --- |" + " ---: |" * len(packages))
    for row in dict.fromkeys(contestant.work for contestant in contestants):
        print(f"| {row} |", *(f"{cells.get((row, package.split()[0]), '')} |" for package in packages))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1000, help="calls of each in a round")
    parser.add_argument("--rounds", type=int, default=150, help="rounds")
    options = parser.parse_args()
    asyncio.run(measure(options.calls, options.rounds))


if __name__ == "__main__":
    main()
