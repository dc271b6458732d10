"""The scenarios of the demonstration: what each pattern is for, shown on a provider that really fails."""

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
    """Play the circuit breaker: closed, open, half-open, closed."""
    stage.open(
        "Circuit breaker", "Stop calling what does not answer; find out with one call when it does again."
    )
    options = CircuitBreakerOptions(failure_threshold=3, open_seconds=2)
    circuit = _breaker(stage, options)

    stage.step("The provider works: calls go through the closed breaker.")
    for _ in range(2):
        await stage.call(circuit, "/get")

    stage.step("Now every call fails. The third failure in a row opens the breaker.")
    await stage.provider.set_faults(EVERY_CALL_FAILS)
    for _ in range(3):
        await stage.call(circuit, "/get")

    stage.step("Open, it rejects at once: 50 calls, of which the provider sees none.")
    seen_before = await stage.provider.calls_seen()
    await stage.burst(circuit, "/get", 50)
    stage.tell(f"calls that reached the provider: {await stage.provider.calls_seen() - seen_before}")

    stage.step("After 2 s one call may probe. The provider still fails, so it opens again.")
    await stage.wait(options.open_seconds)
    await stage.call(circuit, "/get")

    stage.step("The provider recovers: after 2 s a probe succeeds and closes the breaker.")
    await stage.provider.set_faults(NO_FAULTS)
    await stage.wait(options.open_seconds)
    for _ in range(2):
        await stage.call(circuit, "/get")


async def retry(stage: Stage) -> None:
    """Play the timeout and the retry around it."""
    stage.open(
        "Timeout and retry", "Give each attempt so long and no longer; try again after a wait drawn by lot."
    )
    patience = Timeout(0.5, stage.clock)
    backoff = FullJitter(Exponential(base_seconds=0.4, cap_seconds=2.0))
    options = RetryOptions(attempts=3, backoff=backoff, retry_on=_is_worth_retrying)
    policy = Pipeline(Retry(options, stage.clock, stage.randomizer, listener=stage), patience)

    stage.step("Two attempts fail, the third works: the caller sees one slower call.")
    await stage.provider.set_faults(Faults(pattern="FFS"))
    await stage.call(policy, "/get")

    stage.step("No answer ever comes: the attempt is stopped at 0.5 s, the next works.")
    await stage.provider.set_faults(Faults(pattern="FS", kind="hang"))
    await stage.call(policy, "/get")

    stage.step("The connection is cut in mid-answer: a failure too, and tried again.")
    await stage.provider.set_faults(Faults(pattern="FS", kind="cut"))
    await stage.call(policy, "/get")

    stage.step("Refused calls (4xx) are not tried again: they would be refused again.")
    await stage.provider.set_faults(NO_FAULTS)
    await stage.call(policy, "/status/400")

    stage.step("An answer takes 3 s: three attempts are stopped, then the caller is told.")
    await stage.call(policy, "/delay/3")


async def bulkhead(stage: Stage) -> None:
    """Play the bulkhead, the rate limiter, and both around one call."""
    stage.open(
        "Bulkhead and rate limiter",
        "So many calls at a time, so many a second; the others wait a little, or go.",
    )

    stage.step("Bulkhead, 5 at a time, 10 may wait: of 20 calls at once 5 are rejected.")
    await stage.burst(_bulkhead(stage, permits=5, max_waiting=10), "/delay/0.5", 20)

    stage.step("Limiter, 10 a second, none waits that long: 10 go now, 9 in turn.")
    await stage.burst(_limiter(stage, per_second=10, max_wait_seconds=0.95), "/get", 30)

    stage.step("Both, 30 a second and 10 at a time, with room to wait: all 60 are served.")
    both = Pipeline(
        _limiter(stage, per_second=30, max_wait_seconds=5), _bulkhead(stage, permits=10, max_waiting=50)
    )
    await stage.burst(both, "/delay/0.2", 60)


async def fallback(stage: Stage) -> None:
    """Play the fallback, with a breaker inside it."""
    stage.open("Fallback", "Answer with the last good answer while there is no new one.")
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

    stage.step("The provider works: its answer is kept.")
    await call()

    stage.step("Now every call fails. The caller still gets an answer, the kept one.")
    await stage.provider.set_faults(EVERY_CALL_FAILS)
    for _ in range(3):
        await call()

    stage.step("The breaker is open: the provider is not asked, the kept answer serves.")
    await call()

    stage.step("The provider recovers, the breaker is closed by hand: answers are new.")
    await stage.provider.set_faults(NO_FAULTS)
    await circuit.close()
    await call()

    stage.step("Forced open by hand, as for maintenance: the kept answer serves once more.")
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
