"""Every policy reports how each of its calls ended."""

import asyncio

import pytest

from src.resilience import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Bulkhead,
    BulkheadFullError,
    BulkheadOptions,
    CacheOptions,
    CallTimeoutError,
    Chaos,
    ChaosOptions,
    CircuitBreaker,
    CircuitBreakerOptions,
    Fallback,
    Fixed,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    MemoryCacheStore,
    MemoryPaceStore,
    PacedQueue,
    PacedQueueOptions,
    Quota,
    RateLimit,
    RateLimitedError,
    RateLimitOptions,
    ReadThroughCache,
    Retry,
    RetryOptions,
    Timeout,
    always,
    memory_rate_limiter,
)
from src.resilience.adaptive_concurrency import Aimd
from src.resilience.chaos import Fault
from src.resilience.clock import BlockingClock, SystemRandomizer
from src.resilience.errors import QueueTimeoutError
from src.resilience.events import CacheAnswered, CallFinished, Rejected, each, ignore, without
from src.resilience.testing import RecordingListener

REJECTION = RateLimitedError("inner", "the quota is spent", 1.0)


def adaptive(clock, **known):
    return AdaptiveConcurrency(
        AdaptiveConcurrencyOptions(), Aimd(10), Bulkhead(BulkheadOptions(), clock), clock, **known
    )


def breaker(clock, **known):
    return CircuitBreaker("named", MemoryBreakerStore(clock), CircuitBreakerOptions(), clock, **known)


def paced_queue(clock, **known):
    options = PacedQueueOptions(interval_seconds=0.5, max_wait_seconds=1)
    return PacedQueue(options, MemoryPaceStore(options, clock), clock, **known)


def rate_limit(clock, **known):
    limiter = memory_rate_limiter("token_bucket", Quota(5, 1), clock)
    return RateLimit(limiter, RateLimitOptions("all"), clock, **known)


MAKE = {
    AdaptiveConcurrency: adaptive,
    Bulkhead: lambda clock, **known: Bulkhead(BulkheadOptions(1), clock, **known),
    Chaos: lambda clock, **known: Chaos(
        ChaosOptions(Fault(ValueError), 0), clock, SystemRandomizer(), **known
    ),
    CircuitBreaker: breaker,
    Hedging: lambda clock, **known: Hedging(HedgingOptions(1000), clock, **known),
    PacedQueue: paced_queue,
    RateLimit: rate_limit,
    Retry: lambda clock, **known: Retry(
        RetryOptions(2, backoff=Fixed(1)), clock, SystemRandomizer(), **known
    ),
    Timeout: lambda clock, **known: Timeout(9, clock, **known),
    Fallback: lambda clock, **known: Fallback(
        always("substitute"), handles=(KeyError,), clock=clock, **known
    ),
}

every_policy = pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)


def outcomes(listener):
    return [(event.pattern, event.outcome, event.duration_seconds) for event in listener.of(CallFinished)]


def ends_after(clock, seconds, ending):
    async def call():
        await clock.sleep(seconds)
        if isinstance(ending, BaseException):
            raise ending
        return ending

    return call


@pytest.fixture
def listener():
    return RecordingListener()


@every_policy
async def test_a_success_is_reported(kind, clock, listener):
    policy = MAKE[kind](clock, listener=listener)
    assert await clock.drive(policy.run(ends_after(clock, 0.25, "answer"))) == "answer"
    [event] = listener.of(CallFinished)
    assert event == CallFinished(
        policy=policy.name, pattern=kind.__name__, outcome="succeeded", duration_seconds=0.25
    )


@every_policy
@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (ConnectionError(), "failed"),
        (REJECTION, "rejected"),
        (CallTimeoutError(1.0), "timed_out"),
        (QueueTimeoutError(1.0), "timed_out"),
        (SystemExit(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_every_other_outcome_is_reported(kind, ending, outcome, clock, listener):
    policy = MAKE[kind](clock, listener=listener)
    call = ends_after(clock, 0.25, ending)
    if isinstance(ending, Exception):
        with pytest.raises(type(ending)) as raised:
            await clock.drive(policy.run(call))
        assert raised.value is ending
    else:  # not in a new task, since that would end the event loop
        clock.sleep = lambda _seconds: asyncio.sleep(0)
        with pytest.raises(type(ending)):
            await policy.run(call)
    [event] = listener.of(CallFinished)
    assert (event.pattern, event.outcome) == (kind.__name__, outcome)
    assert event.error is ending or type(event.error) is type(ending)


async def test_the_duration_includes_retries_and_waits(clock, listener):
    with pytest.raises(ConnectionError):
        await clock.drive(MAKE[Retry](clock, listener=listener).run(ends_after(clock, 2, ConnectionError())))
    assert outcomes(listener) == [("Retry", "failed", 5.0)]


async def test_a_call_that_exceeds_its_timeout_has_timed_out(clock, listener):
    with pytest.raises(CallTimeoutError):
        await clock.drive(Timeout(9, clock, listener=listener).run(asyncio.Event().wait))
    assert outcomes(listener) == [("Timeout", "timed_out", 9.0)]


async def test_call_finished_follows_the_event_of_the_rejection(clock, listener):
    policy = Bulkhead(BulkheadOptions(1), clock, listener=listener)
    running = asyncio.create_task(policy.run(asyncio.Event().wait))
    await clock.advance(0)
    with pytest.raises(BulkheadFullError) as raised:
        await policy.run(ends_after(clock, 0, "answer"))
    assert [type(event) for event in listener.events] == [Rejected, CallFinished]
    assert listener.events[-1].error is raised.value
    running.cancel()


async def test_an_error_that_is_no_failure_is_a_success_of_the_breaker(clock, listener):
    policy = breaker(clock, listener=listener, is_failure=lambda error: not isinstance(error, KeyError))
    for error in (KeyError(), OSError()):
        with pytest.raises(type(error)):
            await policy.run(ends_after(clock, 0, error))
    assert [outcome for _, outcome, _ in outcomes(listener)] == ["succeeded", "failed"]


async def test_the_result_of_a_substitute_is_a_success(clock, listener):
    policy = Fallback(always("substitute"), clock=clock, listener=listener)
    assert await policy.run(ends_after(clock, 0, OSError())) == "substitute"
    assert outcomes(listener) == [("Fallback", "succeeded", 0.0)]


BAD = "503"


@pytest.mark.parametrize(
    "make",
    [
        lambda clock, **known: CircuitBreaker(
            "named",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(),
            clock,
            is_failure_result=BAD.__eq__,
            **known,
        ),
        lambda clock, **known: Retry(
            RetryOptions(2, backoff=Fixed(1), is_failure_result=BAD.__eq__),
            clock,
            SystemRandomizer(),
            **known,
        ),
        lambda clock, **known: Hedging(HedgingOptions(1000, is_failure_result=BAD.__eq__), clock, **known),
    ],
    ids=["circuit breaker", "retry", "hedging"],
)
async def test_a_result_that_is_a_failure_is_reported_as_one(make, clock, listener):
    policy = make(clock, listener=listener)
    for result in (BAD, "200"):
        assert await clock.drive(policy.run(ends_after(clock, 0, result))) == result
    assert [(outcome.outcome, outcome.error) for outcome in listener.of(CallFinished)] == [
        ("failed", None),
        ("succeeded", None),
    ]


async def test_a_call_with_other_options_is_reported(clock, listener):
    policy = MAKE[Retry](clock, listener=listener)
    for retry, attempts in ((policy.with_options(attempts=4), 4), (policy, 2)):
        began = clock.monotonic()
        with pytest.raises(ConnectionError):
            await clock.drive(retry.run(ends_after(clock, 0, ConnectionError())))
        assert clock.monotonic() - began == attempts - 1
    assert outcomes(listener) == [("Retry", "failed", 3.0), ("Retry", "failed", 1.0)]


async def test_a_block_and_a_decorated_function_are_calls(clock, listener):
    policy = MAKE[Bulkhead](clock, listener=listener)
    async with policy:
        clock.jump(2)
    with pytest.raises(ConnectionError):
        async with policy:
            raise ConnectionError

    @policy
    async def decorated():
        clock.jump(3)

    await decorated()
    assert outcomes(listener) == [
        ("Bulkhead", "succeeded", 2.0),
        ("Bulkhead", "failed", 0.0),
        ("Bulkhead", "succeeded", 3.0),
    ]


def test_a_call_without_an_event_loop_is_reported(clock, listener):
    policy = Retry(RetryOptions(), BlockingClock(), SystemRandomizer(), listener=listener)
    assert policy.run_sync(lambda: 42) == 42
    assert [outcome for _, outcome, _ in outcomes(listener)] == ["succeeded"]


async def test_a_keyword_argument_of_run_is_passed_on(clock, listener):
    policy = paced_queue(clock, listener=listener)
    assert await clock.drive(policy.run(ends_after(clock, 0, "answer"), priority=3)) == "answer"
    with pytest.raises(ValueError, match="priority"):
        await policy.run(ends_after(clock, 0, "answer"), priority=3000)
    assert [outcome for _, outcome, _ in outcomes(listener)] == ["succeeded", "failed"]


@every_policy
async def test_a_plain_function_has_no_outcome(kind, clock, listener):
    with pytest.raises(TypeError, match="plain function"):
        await MAKE[kind](clock, listener=listener).run(run_plain_function)
    assert listener.events == []


def run_plain_function():
    return "answer"


@every_policy
async def test_a_closed_coroutine_is_cancelled(kind, clock, listener):
    running = MAKE[kind](clock, listener=listener).run(asyncio.Event().wait)
    running.send(None)
    running.close()
    assert [outcome for _, outcome, _ in outcomes(listener)] == ["cancelled"]


async def test_a_failing_listener_does_not_affect_the_call(clock, caplog):
    def fail(event):
        raise OSError("disk full")

    assert await Timeout(9, clock, listener=fail).run(ends_after(clock, 0, "answer")) == "answer"
    assert "CallFinished" in caplog.text


@every_policy
@pytest.mark.parametrize("leave_out", [True, False])
def test_a_policy_measures_nothing_if_its_listener_excludes_the_event(kind, leave_out, clock):
    unheard = without(RecordingListener(), CallFinished) if leave_out else ignore
    assert "run" not in vars(MAKE[kind](clock, listener=unheard))
    assert "run" not in vars(MAKE[kind](clock))


def cache(clock, **known):
    options = CacheOptions(ttl_seconds=60, stale_seconds=3600, negative_seconds=10)
    return ReadThroughCache(MemoryCacheStore(clock), options, clock, stale_on=(TimeoutError,), **known)


async def test_every_answer_of_a_cache_is_a_call_that_succeeded(clock, listener):
    prices = cache(clock, listener=listener, name="prices")

    @prices.cached(lambda item: item)
    async def price(item):
        await clock.sleep(0.25)
        return b"9"

    await clock.drive(price("tea"))
    await prices.begin("tea", price).result()
    prices.begin("tea", price)  # nobody waits for this answer
    clock.jump(61)  # the entry has expired
    await prices.get("tea", ends_after(clock, 0, TimeoutError()))

    assert [event.outcome for event in listener.of(CacheAnswered)] == ["miss", "hit", "stale"]
    assert listener.of(CallFinished) == [
        CallFinished(
            policy="prices", pattern="ReadThroughCache", outcome="succeeded", duration_seconds=seconds
        )
        for seconds in (0.25, 0, 0)
    ]


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (ConnectionError(), "failed"),
        (REJECTION, "rejected"),
        (CallTimeoutError(1.0), "timed_out"),
        (asyncio.CancelledError(), "cancelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("refresh", [False, True], ids=["read", "refresh"])
async def test_every_other_end_of_a_read_is_an_event_too(refresh, ending, outcome, clock, listener):
    reading = cache(clock, listener=listener).get("tea", ends_after(clock, 0.25, ending), refresh=refresh)
    with pytest.raises(type(ending)):
        await clock.drive(reading)
    [event] = listener.of(CallFinished)
    assert (event.pattern, event.outcome, event.duration_seconds) == ("ReadThroughCache", outcome, 0.25)
    assert type(event.error) is type(ending)


async def test_a_read_whose_caller_leaves_is_cancelled_though_the_computation_goes_on(clock, listener):
    prices = cache(clock, listener=listener)
    caller = asyncio.create_task(prices.get("tea", ends_after(clock, 1, b"9")))
    await clock.advance(0.25)
    caller.cancel()
    await clock.advance(1)
    assert (await prices.get("tea", run_plain_function)).outcome == "hit"
    assert outcomes(listener) == [
        ("ReadThroughCache", "cancelled", 0.25),
        ("ReadThroughCache", "succeeded", 0.0),
    ]


async def test_a_remembered_failure_fails_each_call_and_a_plain_function_is_no_call(clock, listener):
    prices = cache(clock, listener=listener)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await prices.get("tea", ends_after(clock, 0, ConnectionError()))
    with pytest.raises(TypeError, match="plain function"):
        await prices.get("coffee", run_plain_function)
    assert [outcome for _, outcome, _ in outcomes(listener)] == ["failed", "failed"]


@pytest.mark.parametrize("known", [{}, {"listener": without(RecordingListener(), CallFinished)}])
def test_a_cache_measures_nothing_for_a_listener_that_leaves_the_event_out(known, clock):
    assert "_finish" not in vars(cache(clock, **known))


async def test_a_listener_can_exclude_kinds_of_events(clock, listener):
    others = RecordingListener()
    policy = Timeout(9, clock, listener=each(listener, without(others, CallFinished, Rejected)))
    await policy.run(ends_after(clock, 0, "answer"))
    assert len(listener.events) == 1
    assert others.events == []
