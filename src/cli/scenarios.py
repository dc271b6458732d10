"""The scenarios of the demonstration. Each one shows the purpose of a pattern with a provider that fails."""

import httpx

from src.cli.provider_client import ProviderError, is_failure
from src.cli.stage import Stage
from src.provider.faults import Faults
from src.resilience import (
    Bulkhead,
    BulkheadOptions,
    CallTimeoutError,
    CircuitBreaker,
    CircuitBreakerOptions,
    Exponential,
    Fallback,
    FullJitter,
    MemoryBreakerStore,
    Pipeline,
    Quota,
    RateLimit,
    RateLimitOptions,
    Retry,
    RetryOptions,
    Timeout,
    memory_rate_limiter,
)

NO_FAULTS = Faults()
EVERY_CALL_FAILS = Faults(failure_rate=1)


async def breaker(stage: Stage) -> None:
    """Show the circuit breaker: closed, open, half-open, closed."""
    stage.open(
        "Circuit breaker",
        "Stop calling a service that fails, and detect its recovery with a single call.",
    )
    options = CircuitBreakerOptions(failure_threshold=3, open_seconds=2)
    circuit = _breaker(stage, options)

    stage.step("The provider works, and the breaker is closed: it admits every call.")
    for _ in range(2):
        await stage.call(circuit, "/get")

    stage.step("Now every call fails. The third consecutive failure opens the breaker.")
    await stage.provider.set_faults(EVERY_CALL_FAILS)
    for _ in range(3):
        await stage.call(circuit, "/get")

    stage.step("The open breaker rejects 50 calls at once. None of them reaches the provider.")
    calls_before = await stage.provider.count_calls()
    await stage.burst(circuit, "/get", 50)
    stage.print(f"calls that reached the provider: {await stage.provider.count_calls() - calls_before}")

    stage.step("After 2 s the breaker admits a probe, which fails. The breaker opens again.")
    await stage.wait(options.open_seconds)
    await stage.call(circuit, "/get")

    stage.step("The provider recovers. After 2 s a probe succeeds and closes the breaker.")
    await stage.provider.set_faults(NO_FAULTS)
    await stage.wait(options.open_seconds)
    for _ in range(2):
        await stage.call(circuit, "/get")


async def retry(stage: Stage) -> None:
    """Show the timeout and the retry around it."""
    stage.open(
        "Timeout and retry",
        "Limit the time of each attempt, and repeat a failed one after a random wait.",
    )
    timeout = Timeout(0.5, stage.clock)
    backoff = FullJitter(Exponential(base_seconds=0.4, cap_seconds=2.0))
    options = RetryOptions(attempts=3, backoff=backoff, retry_on=_is_worth_retrying)
    policy = Pipeline(Retry(options, stage.clock, stage.randomizer, listener=stage), timeout)

    stage.step("Two attempts fail and the third succeeds. The caller gets the answer later.")
    await stage.provider.set_faults(Faults(pattern="FFS"))
    await stage.call(policy, "/get")

    stage.step("The first attempt hangs and times out after 0.5 s. The second succeeds.")
    await stage.provider.set_faults(Faults(pattern="FS", kind="hang"))
    await stage.call(policy, "/get")

    stage.step("The connection closes during the answer. This failure is retried too.")
    await stage.provider.set_faults(Faults(pattern="FS", kind="cut"))
    await stage.call(policy, "/get")

    stage.step("Client errors (4xx) are not retried, since a retry would fail again.")
    await stage.provider.set_faults(NO_FAULTS)
    await stage.call(policy, "/status/400")

    stage.step("An answer takes 3 s. All three attempts time out, and the call fails.")
    await stage.call(policy, "/delay/3")


async def bulkhead(stage: Stage) -> None:
    """Show the bulkhead, the rate limiter, and both around one call."""
    stage.open(
        "Bulkhead and rate limiter",
        "Limit the concurrent calls and the calls per second. The others wait or fail.",
    )

    stage.step("Bulkhead with 5 permits and 10 waiting places: 5 of 20 calls are rejected.")
    await stage.burst(_bulkhead(stage, permits=5, max_waiting=10), "/delay/0.5", 20)

    stage.step("Limiter with 10 calls per second, waits below 0.95 s: 11 of 30 are rejected.")
    await stage.burst(_limiter(stage, per_second=10, max_wait_seconds=0.95), "/get", 30)

    stage.step("Both, 30 calls per second and 10 permits, with long waits: 60 calls succeed.")
    both = Pipeline(
        _limiter(stage, per_second=30, max_wait_seconds=5), _bulkhead(stage, permits=10, max_waiting=50)
    )
    await stage.burst(both, "/delay/0.2", 60)


async def fallback(stage: Stage) -> None:
    """Show the fallback around a circuit breaker."""
    stage.open("Fallback", "Return the last good answer if a call fails.")
    path = "/kv/metric-types/temperature"
    circuit = _breaker(stage, CircuitBreakerOptions(failure_threshold=3))
    last_good: httpx.Response | None = None

    async def read() -> httpx.Response:
        nonlocal last_good
        last_good = await stage.provider.call("GET", path)
        return last_good

    def last_good_or(error: Exception) -> httpx.Response:
        if last_good is None:
            raise error
        return last_good

    policy = Pipeline(Fallback(last_good_or, listener=stage), circuit, Timeout(0.5, stage.clock))

    async def call() -> None:
        await stage.show(path, lambda: policy.run(read))

    stage.step("The provider works. Its answer is kept.")
    await call()

    stage.step("Now every call fails. The caller gets the kept answer.")
    await stage.provider.set_faults(EVERY_CALL_FAILS)
    for _ in range(3):
        await call()

    stage.step("The breaker is open. The caller gets the kept answer without a call.")
    await call()

    stage.step("The provider recovers, and an operator closes the breaker: new answers.")
    await stage.provider.set_faults(NO_FAULTS)
    await circuit.close()
    await call()

    stage.step("An operator opens the breaker for maintenance: the kept answer again.")
    await circuit.force_open()
    await call()


def _breaker(stage: Stage, options: CircuitBreakerOptions) -> CircuitBreaker:
    store = MemoryBreakerStore(stage.clock)
    return CircuitBreaker("breaker", store, options, stage.clock, listener=stage, is_failure=is_failure)


def _bulkhead(stage: Stage, *, permits: int, max_waiting: int) -> Bulkhead:
    options = BulkheadOptions(permits=permits, max_waiting=max_waiting, max_wait_seconds=5)
    return Bulkhead(options, stage.clock, listener=stage)


def _limiter(stage: Stage, *, per_second: int, max_wait_seconds: float) -> RateLimit:
    limiter = memory_rate_limiter("token_bucket", Quota(per_second, 1), stage.clock)
    options = RateLimitOptions(key="demo", max_wait_seconds=max_wait_seconds)
    return RateLimit(limiter, options, stage.clock, listener=stage)


def _is_worth_retrying(error: Exception) -> bool:
    return isinstance(error, (ProviderError, CallTimeoutError)) and is_failure(error) is True
