"""What policies of other projects do with a call, alone and inside one another, and what ours do.

The rows are those of the test suites and pages that each vector names. Where ours differs, the row holds what
ours does. `differs` says what the source does, and why ours does not.

A call is written as the outcomes of its attempts; the last one holds for all further attempts:

========== ======================================================================
`S`        the attempt returns "answer"
`=text`    it returns "text"
`F`        it raises ConnectionError; `V`: ValueError
`S/5`      it returns "answer" after 5 seconds; the others likewise
========== ======================================================================
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.errors import BulkheadFullError, CallTimeoutError, CircuitOpenError, RateLimitedError
from src.resilience.fallback import Fallback, always
from src.resilience.hedging import Hedging, HedgingOptions
from src.resilience.pipeline import Pipeline
from src.resilience.policy import Policy
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota, RateLimitOptions
from src.resilience.rate_limiter.policy import RateLimit
from src.resilience.retry import Backoff, Exponential, Fixed, Retry, RetryOptions
from src.resilience.timeout import Timeout
from tests.support.clock import FakeClock, FakeRandomizer, settle

MakePolicy = Callable[[FakeClock], Policy]

ERRORS = {"F": ConnectionError, "V": ValueError}


def retry(attempts: int, wait: float | Backoff = 0.0, **options: object) -> MakePolicy:
    backoff = Fixed(wait) if isinstance(wait, float) else wait
    return lambda clock: Retry(RetryOptions(attempts, backoff=backoff, **options), clock, FakeRandomizer())


def timeout(seconds: float) -> MakePolicy:
    return lambda clock: Timeout(seconds, clock)


def hedging(delay: float, attempts: int) -> MakePolicy:
    return lambda clock: Hedging(HedgingOptions(delay, attempts=attempts), clock)


def fallback(substitute: Callable[[Exception], object], **options: object) -> MakePolicy:
    return lambda clock: Fallback(substitute, clock=clock, **options)


def slow_fallback(seconds: float) -> MakePolicy:
    return lambda clock: Fallback(lambda _error: clock.sleep(seconds), clock=clock)


def breaker(failures: int) -> MakePolicy:
    options = CircuitBreakerOptions(failure_threshold=failures, open_seconds=60)
    return lambda clock: CircuitBreaker("vector", MemoryBreakerStore(clock), options, clock)


def bulkhead(permits: int, max_waiting: int = 0, max_wait: float = 1.0) -> MakePolicy:
    return lambda clock: Bulkhead(BulkheadOptions(permits, max_waiting, max_wait), clock)


def rate_limit(limit: int, seconds: float, max_wait: float = 0.0) -> MakePolicy:
    return lambda clock: RateLimit(
        memory_rate_limiter("leaky_bucket", Quota(limit, seconds), clock),
        RateLimitOptions("vector", max_wait_seconds=max_wait),
        clock,
    )


def raise_value_error(_error: Exception) -> object:
    raise ValueError


def name_of(error: Exception) -> str:
    return type(error).__name__


def is_network_error(error: Exception) -> bool:
    return isinstance(error, OSError)


def is_value_error(error: Exception) -> bool:
    return isinstance(error, ValueError)


SUBSTITUTE = always("substitute")


@dataclass(frozen=True)
class Vector:
    """A call through policies, and how it ends.

    Attributes:
        source: The project and the test or page.
        policies: The policies, outermost first.
        call: The outcomes of the attempts.
        outcome: The result, or the type of the error.
        attempts: How many attempts began.
        seconds: When the call ended.
        others: Calls that began before it: how many seconds each takes.
        differs: What the source does instead, and why ours does not; None where both agree.
    """

    source: str
    policies: tuple[MakePolicy, ...]
    call: str
    outcome: str | type[Exception]
    attempts: int = 1
    seconds: float = 0.0
    others: tuple[float, ...] = ()
    differs: str | None = None


VECTORS = {
    # ------------------------------------------------------------ timeout
    "timeout: a fast call is not stopped": Vector(
        "failsafe-go, TestTimeout, should not timeout", (timeout(1.0),), "S", "answer"
    ),
    "timeout: a slow call is stopped": Vector(
        "Polly, TimeoutResilienceStrategyTests, Execute_Timeout",
        (timeout(2.0),), "S/4", CallTimeoutError, seconds=2.0,
    ),
    "timeout: a call that ends at the limit is stopped": Vector(
        "Polly, TimeoutResilienceStrategyTests, Execute_EnsureOnTimeoutCalled",
        (timeout(12.0),), "S/13", CallTimeoutError, seconds=12.0,
    ),
    "timeout: an error of the call is the caller's": Vector(
        "failsafe-go, TestTimeout, RetryPolicy -> Timeout with pending retry",
        (timeout(2.0),), "V/1", ValueError, seconds=1.0,
    ),
    "retry around timeout: each attempt has its own limit": Vector(
        "failsafe-go, TestTimeout, RetryPolicy -> Timeout with blocked execution",
        (retry(3), timeout(0.05)), "S/0.1 S/0.1 S", "answer", 3, 0.1,
    ),
    "retry around timeout: the limit does not run while the retry waits": Vector(
        "failsafe-go, TestTimeout, RetryPolicy -> Timeout with pending retry",
        (retry(3, 0.1), timeout(0.05)), "F", ConnectionError, 3, 0.2,
    ),
    "timeout around retry: it stops an attempt": Vector(
        "failsafe-go, TestTimeout, Timeout -> RetryPolicy with blocked execution",
        (timeout(0.15), retry(3)), "F/0.06", CallTimeoutError, 3, 0.15,
    ),
    "timeout around retry: it stops the wait for an attempt": Vector(
        "failsafe-go, TestTimeout, Timeout -> RetryPolicy with pending retry",
        (timeout(0.1), retry(3, 1.0)), "F", CallTimeoutError, 1, 0.1,
    ),
    "timeout around hedging: it stops all attempts": Vector(
        "failsafe-go, TestTimeout, Timeout -> HedgePolicy with blocked execution",
        (timeout(0.1), hedging(0.01, 3)), "F/1", CallTimeoutError, 3, 0.1,
    ),
    "fallback around timeout: it answers for a stopped call": Vector(
        "failsafe-go, TestTimeout, Fallback -> Timeout with blocked execution",
        (fallback(raise_value_error), timeout(0.01)), "F/0.1", ValueError, 1, 0.01,
    ),
    "fallback around timeout: it answers for a failed call": Vector(
        "failsafe-go, TestTimeout, Fallback -> Timeout",
        (fallback(raise_value_error), timeout(0.01)), "F", ValueError,
    ),
    "timeout around fallback: it stops the call, and there is no substitute": Vector(
        "failsafe-go, TestTimeout, Timeout -> Fallback with blocked execution",
        (timeout(0.01), fallback(raise_value_error)), "F/0.1", CallTimeoutError, 1, 0.01,
    ),
    "timeout around fallback: it stops the substitute": Vector(
        "failsafe-go, TestTimeout, Timeout -> Fallback with blocked fallback func",
        (timeout(0.1), slow_fallback(0.2)), "F", CallTimeoutError, 1, 0.1,
    ),
    # ------------------------------------------------------------ retry
    "retry: the last error": Vector(
        "failsafe-go, TestRetryPolicy, should return last failure", (retry(4),), "F", ConnectionError, 4
    ),
    "retry: used up": Vector(
        "failsafe-go, TestRetryPolicy, should return ExceededError; tenacity, test_retry_error",
        (retry(3),), "F", ConnectionError, 3,
        differs="Both wrap the last error, in ExceededError and RetryError. Ours raises the error itself, as "
        "stamina and Polly do, so that a caller handles it with or without the policy.",
    ),
    "retry: a success is not repeated": Vector(
        "failsafe-go, TestRetryPolicy, should not retry on success", (retry(3),), "S", "answer"
    ),
    "retry: results that count as failures": Vector(
        "failsafe-go, TestRetryPolicy, should not retry on non-retriable failure",
        (retry(9, is_failure_result="500".__eq__),), "=500 =500 S", "answer", 3,
    ),
    "retry: five errors and a success": Vector(
        "failsafe-go, TestRetryPolicy, unlimited attempts", (retry(1000),), "F F F F F S", "answer", 6,
        differs="failsafe-go also retries without an end. Ours has a limit of attempts and of time, as "
        "stamina has.",
    ),
    "retry: no attempt begins after the time in all": Vector(
        "failsafe-go, TestRetryPolicy, should fail when max duration exceeded",
        (retry(3, total_seconds=0.1),), "F F/0.12", ConnectionError, 2, 0.12,
    ),
    "retry: backoff from 1 ms to 10 ms": Vector(
        "failsafe-go, TestRetryPolicy, with backoff delay",
        (retry(7, Exponential(0.001, 0.01)),), "F", ConnectionError, 7, 0.035,
    ),
    "retry: results that count as failures, used up": Vector(
        "tenacity, test_with_stop_on_return_value",
        (retry(3, is_failure_result="None".__eq__),), "=None", "None", 3,
        differs="tenacity raises RetryError. Ours returns the last result, since the caller may know what to "
        "do with it, for example with a response with status 503.",
    ),
    "retry: errors of a type": Vector(
        "tenacity, test_retry_if_exception_of_type; stamina, test_retries",
        (retry(9, retry_on=is_network_error),), "F F S", "answer", 3,
    ),
    "retry: an error of another type": Vector(
        "tenacity, test_retry_if_exception_of_type; stamina, test_wrong_exception",
        (retry(9, retry_on=is_network_error),), "V", ValueError,
    ),
    "retry: errors but those of a type": Vector(
        "tenacity, test_retry_except_exception_of_type",
        (retry(9, abort_on=is_value_error),), "F F V", ValueError, 3,
    ),
    "retry: one attempt is no retry": Vector(
        "stamina, test_ok with attempts of 1; resilience4j, maxAttempts(1)", (retry(1),), "F", ConnectionError
    ),
    "retry: three retries are four attempts": Vector(
        "Polly, RetryResilienceStrategyTests, RetryException_RetryCount_Respected",
        (retry(4),), "F", ConnectionError, 4,
    ),
    "retry around retry: the inner one is used up twice": Vector(
        "failsafe-go, TestRetryPolicy_Nested, RetryPolicy -> RetryPolicy where inner policy is exceeded",
        (retry(11), retry(2)), "F F F F F S", "answer", 6,
    ),
    "retry around retry: the attempts multiply": Vector(
        "failsafe-go, TestRetryPolicy_Nested, should track RetryPolicy -> RetryPolicy attempts",
        (retry(3), retry(3)), "F", ConnectionError, 9,
        differs="In failsafe-go an inner policy that is used up stays so until the call ends: 5 attempts. "
        "Ours begins the inner policy again with each attempt of the outer one, as Polly does.",
    ),
    "fallback around two retries of different errors": Vector(
        "failsafe-go, TestRetryPolicy_Nested, Fallback -> RetryPolicy -> RetryPolicy",
        (fallback(SUBSTITUTE), retry(4, retry_on=is_value_error), retry(3, retry_on=is_network_error)),
        "F V F V F V F V", "substitute", 8,
        differs="failsafe-go makes 5 attempts, since the inner policy counts over the whole call.",
    ),
    "retry around breaker: no attempt while the breaker is open": Vector(
        "failsafe-go, TestCircuitBreaker, with rejected retries",
        (retry(7), breaker(3)), "F", CircuitOpenError, 3,
        differs="failsafe-go asks the open breaker four times more. Ours does not retry before the "
        "rejection's `retry_after`, which is beyond the time in all; the call begins three times in both.",
    ),
    "breaker around retry: the attempts are one failure": Vector(
        "resilience4j, documentation of the order of decorators",
        (retry(3), breaker(2), retry(2)), "F F F F S", CircuitOpenError, 4,
        differs="resilience4j puts the retry outermost by default. The order is the user's here; each call "
        "of the inner retry is one failure of the breaker.",
    ),
    # ------------------------------------------------------------ fallback
    "fallback: a substitute for an error": Vector(
        "failsafe-go, TestFallback, with result; Polly, Handle_Exception_Ok",
        (fallback(SUBSTITUTE),), "F", "substitute",
    ),
    "fallback: another error": Vector(
        "failsafe-go, TestFallback, with error", (fallback(raise_value_error),), "F", ValueError
    ),
    "fallback: a function of the error": Vector(
        "failsafe-go, TestFallback, with func", (fallback(name_of),), "F", "ConnectionError"
    ),
    "fallback: a success needs none": Vector(
        "failsafe-go, TestFallback, should not fallback", (fallback(SUBSTITUTE),), "S", "answer"
    ),
    "fallback: a result that counts as a failure": Vector(
        "failsafe-go, TestFallback, should fallback with failure conditions; Polly, Handle_Result_Ok",
        (fallback(SUBSTITUTE, is_failure_result="500".__eq__),), "=500", "substitute",
    ),
    "fallback: a result that does not": Vector(
        "failsafe-go, should fallback with failure conditions; Polly, Handle_UnhandledResult_Ok",
        (fallback(SUBSTITUTE, is_failure_result="500".__eq__),), "=400", "400",
    ),
    "fallback: its substitute fails": Vector(
        "Polly, FallbackResilienceStrategyTests, Handle_Result_FallbackActionThrows",
        (fallback(raise_value_error, is_failure_result="dummy".__eq__),), "=dummy", ValueError,
    ),
    "fallback: an error that it does not handle": Vector(
        "Polly, FallbackResilienceStrategyTests, Handle_UnhandledException_Ok",
        (fallback(SUBSTITUTE, handles=(OSError,)),), "V", ValueError,
    ),
    "fallback around fallback: the inner one answers": Vector(
        "failsafe-go, TestFallback, should verify fallback result",
        (fallback(raise_value_error), fallback(SUBSTITUTE)), "F", "substitute",
    ),
    "fallback around fallback: the outer one answers for the inner": Vector(
        "failsafe-go, TestFallback, should verify fallback result",
        (fallback(name_of), fallback(raise_value_error)), "F", "ValueError",
    ),
    # ------------------------------------------------------------ hedging
    "hedging: a fast call has one attempt": Vector(
        "failsafe-go, TestHedgePolicy, should not hedge when delay not exceeded",
        (hedging(1.0, 2),), "S", "answer",
    ),
    "hedging: the first of three attempts answers first": Vector(
        "failsafe-go, TestHedgePolicy, all hedges used",
        (hedging(0.02, 3),), "=first/0.1 =second/0.1 =third/0.1", "first", 3, 0.1,
    ),
    "hedging: the second attempt answers first": Vector(
        "Polly, HedgingResilienceStrategyTests, ExecuteAsync_EnsurePrimaryTaskCancelled_Ok",
        (hedging(0.1, 2),), "=first/1 =second", "second", 2, 0.1,
    ),
    "hedging: a failed attempt does not win": Vector(
        "Polly, documentation of hedging, parallel mode",
        (hedging(0.1, 2),), "=first/1 F", "first", 2, 1.0,
    ),
    "hedging: every attempt fails": Vector(
        "Polly, HedgingResilienceStrategyTests, ExecuteAsync_ExceptionsHandled_ShouldThrowLastException",
        (hedging(0.1, 2),), "F/0.3 V/0.3", ValueError, 2, 0.4,
    ),
    "hedging: every attempt fails, and the first is the slowest": Vector(
        "Polly, ExecuteAsync_AllAttemptsFailAndTheOriginalCallIsTheSlowest_EnsureOriginalCallsResultReturned",
        (hedging(0.1, 2),), "F/1 V", ConnectionError, 2, 1.0,
    ),
    "hedging: the first attempt fails at once": Vector(
        "Polly, HedgingResilienceStrategyTests, ExecuteAsync_ExceptionsHandled_ShouldReturnLastResult",
        (hedging(1.0, 2),), "F S", ConnectionError,
        differs="Polly begins the next attempt at once after a failure. Ours begins further attempts only "
        "for slow ones: a retry around it repeats failed ones, with a delay and a budget.",
    ),
    "retry around hedging: it repeats what all attempts failed": Vector(
        "Polly, ResiliencePipelineBuilder: the strategy that is added first is the outermost",
        (retry(2), hedging(1.0, 2)), "F S", "answer", 2,
    ),
    # ------------------------------------------------------------ bulkhead and rate limit
    "bulkhead: not full": Vector(
        "failsafe-go, TestBulkHead, when not full", (bulkhead(2),), "S", "answer", others=(9,)
    ),
    "bulkhead: full": Vector(
        "failsafe-go, TestBulkHead, when full", (bulkhead(2),), "S", BulkheadFullError, 0, others=(9, 9)
    ),
    "bulkhead: a permit comes within the wait": Vector(
        "failsafe-go, TestBulkHead, should AcquirePermit after wait",
        (bulkhead(2, 1, 1.0),), "S", "answer", 1, 0.2, others=(0.2, 0.2),
    ),
    "bulkhead: none comes within the wait": Vector(
        "failsafe-go, TestBulkHead, with maxWaitTime exceeded",
        (bulkhead(2, 1, 0.02),), "S", BulkheadFullError, 0, 0.02, others=(9, 9),
    ),
    "bulkhead: a short wait does not matter while there are permits": Vector(
        "failsafe-go, TestBulkHead, with short maxWaitTime", (bulkhead(1, 1, 1e-9),), "S", "answer"
    ),
    "bulkhead: a call that failed gives its permit back": Vector(
        "resilience4j, SemaphoreBulkheadTest, shouldHandleBasicBulkheadOperationsInBothThreadModes",
        (retry(2), bulkhead(1)), "F S", "answer", 2,
    ),
    "bulkhead: a stopped call gives its permit back": Vector(
        "resilience4j, Bulkhead.decorateSupplier, which completes in `finally`",
        (retry(2), timeout(1.0), bulkhead(1)), "S/9 S", "answer", 2, 1.0,
    ),
    "rate limit: a unit comes within the wait": Vector(
        "failsafe-go, TestRateLimiter, should acquire permit after wait",
        (rate_limit(1, 0.05, max_wait=2.0),), "S", "answer", 1, 0.05, others=(0,),
    ),
    "rate limit: no wait is allowed": Vector(
        "failsafe-go, TestRateLimiter, should return ErrExceeded",
        (rate_limit(1, 3600),), "S", RateLimitedError, 0, others=(0,),
    ),
    "rate limit: no unit comes within the wait": Vector(
        "failsafe-go, TestRateLimiter, with maxWaitTime exceeded; resilience4j, timeoutDuration",
        (rate_limit(1, 1.0, max_wait=0.5),), "S", RateLimitedError, 0, others=(0,),
    ),
    "rate limit: a burst, and then one each interval": Vector(
        "aiolimiter, documentation: a burst up to the capacity",
        (rate_limit(2, 2.0, max_wait=5.0),), "S", "answer", 1, 2.0, others=(0, 0, 0),
    ),
    "rate limit inside retry: it waits for the time that the rejection names": Vector(
        "RFC 9110, section 10.2.3, Retry-After",
        (retry(2), rate_limit(1, 3.0)), "S", "answer", 1, 3.0, others=(0,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
async def test_it_ends_as_the_source_says(vector: Vector, clock: FakeClock) -> None:
    policy = Pipeline(*(make(clock) for make in vector.policies))
    outcomes, attempts = vector.call.split(), 0
    other_calls = [asyncio.create_task(policy.run(lambda s=s: clock.sleep(s))) for s in vector.others]
    await settle()

    async def call() -> str:
        nonlocal attempts
        ending, _, seconds = outcomes[min(attempts, len(outcomes) - 1)].partition("/")
        attempts += 1
        if seconds:
            await clock.sleep(float(seconds))
        if ending in ERRORS:
            raise ERRORS[ending]
        return "answer" if ending == "S" else ending.removeprefix("=")

    began = clock.monotonic()
    try:
        outcome = await clock.drive(policy.run(call))
    except Exception as error:
        outcome = type(error)
    seconds = clock.monotonic() - began
    for other in other_calls:
        other.cancel()
    await asyncio.gather(*other_calls, return_exceptions=True)
    assert (outcome, attempts, seconds) == (
        vector.outcome,
        vector.attempts,
        pytest.approx(vector.seconds, abs=1e-9),
    )


@pytest.mark.parametrize("seconds", [0.0, -0.001, math.inf])
def test_a_timeout_without_a_limit_is_an_error(seconds: float) -> None:
    """Polly, Execute_NoTimeout: there such a timeout does not apply. Here, leave it out of the pipeline."""
    with pytest.raises(ValueError, match="seconds must be"):
        Timeout(seconds)
