"""The ways to call that policies share: decorator, block of code, other options, without asyncio."""

import asyncio
import functools
import gc
import inspect
import threading
import time

import pytest

from src.resilience import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Bulkhead,
    BulkheadFullError,
    BulkheadOptions,
    CallTimeoutError,
    CircuitBreaker,
    CircuitBreakerOptions,
    CircuitOpenError,
    Fallback,
    Fixed,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    Pipeline,
    Quota,
    RateLimit,
    RateLimitedError,
    RateLimitOptions,
    Retry,
    RetryOptions,
    Timeout,
    always,
    memory_rate_limiter,
)
from src.resilience.adaptive_concurrency import Aimd
from src.resilience.building_blocks.permit import BlockPolicy, Permit
from src.resilience.circuit_breaker import ThreadSafeBreakerStore
from src.resilience.clock import BlockingClock, SystemRandomizer
from src.resilience.retry import RetryBudget
from tests.support.clock import FakeClock, settle
from tests.unit.resilience.test_every_policy import (
    POLICIES,
    answer,
    every_ending,
    every_policy,
    half_open,
    rate_limit,
    run_to_first_wait,
)

# ---------------------------------------------------------------- decorator


@every_policy
async def test_a_decorated_function_is_called_with_its_arguments_under_the_policy(make, clock):
    @make(clock)
    async def join(first, *others, sep):
        """Join words."""
        return sep.join((first, *others))

    assert await clock.drive(join("a", "b", sep="-")) == "a-b"
    assert (join.__name__, join.__doc__) == ("join", "Join words.")
    assert str(inspect.signature(join)) == "(first, *others, sep)"
    assert inspect.iscoroutinefunction(join)


@every_policy
async def test_a_decorated_method_is_called_on_its_object(make, clock):
    policy = make(clock)

    class Shop:
        price = 3

        @policy
        async def total(self, items):
            return items * self.price

    assert await clock.drive(Shop().total(2)) == 6


@every_policy
@pytest.mark.parametrize("kind", ["function", "generator", "partial"])
def test_a_plain_function_cannot_be_decorated(make, kind, clock):
    def function():
        return 42

    def generator():
        yield 42

    plain = {"function": function, "generator": generator, "partial": functools.partial(function)}[kind]
    with pytest.raises(TypeError, match="is a plain function"):
        make(clock)(plain)


@every_policy
def test_an_asynchronous_generator_cannot_be_decorated(make, clock):
    async def prices():
        yield 42

    with pytest.raises(TypeError, match="prices is an asynchronous generator; a policy awaits one result"):
        make(clock)(prices)


async def test_a_decorated_call_is_rejected_and_retried(clock):
    attempts = []

    @Retry(RetryOptions(attempts=3, backoff=Fixed(1)), clock, SystemRandomizer())
    async def fail(reason):
        attempts.append(reason)
        raise ConnectionError(reason)

    with pytest.raises(ConnectionError, match="no route"):
        await clock.drive(fail("no route"))
    assert attempts == ["no route"] * 3


# ---------------------------------------------------------------- block of code


BLOCK_POLICIES = {
    name: POLICIES[name]
    for name in (
        "adaptive-concurrency", "bulkhead", "circuit-breaker", "paced-queue", "rate-limiter", "timeout"
    )
}  # fmt: skip

every_block_policy = pytest.mark.parametrize("make", BLOCK_POLICIES.values(), ids=BLOCK_POLICIES)

HOLDERS = {
    "bulkhead": POLICIES["bulkhead"],
    "adaptive-concurrency": POLICIES["adaptive-concurrency"],
    "circuit-breaker": half_open,
}

every_holder = pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)

short_and_long = pytest.mark.parametrize(
    "form", [lambda policy: policy, BlockPolicy.permit], ids=["policy", "permit"]
)


async def make_policy(make, clock):
    policy = make(clock)
    return await policy if asyncio.iscoroutine(policy) else policy


def test_policies_that_run_a_call_at_most_once_accept_a_block(clock):
    assert {name for name, make in POLICIES.items() if isinstance(make(clock), BlockPolicy)} == {
        *BLOCK_POLICIES
    }


@every_block_policy
@short_and_long
async def test_a_block_runs_under_the_policy(make, form, clock):
    async with form(make(clock)) as permit:
        assert isinstance(permit, Permit)


@every_block_policy
@short_and_long
@pytest.mark.parametrize("error", [ValueError, StopAsyncIteration, TimeoutError, *every_ending.args[1]])
async def test_an_error_of_the_block_is_raised_unchanged(make, form, error, clock):
    raised = error()
    with pytest.raises(error) as caught:
        async with form(make(clock)):
            raise raised
    assert caught.value is raised
    assert len(caught.traceback) == 1, "frames of the policy"


@every_block_policy
@short_and_long
async def test_a_stop_iteration_of_the_block_stays_one(make, form, clock):
    found = None
    try:
        async with form(make(clock)):
            next(iter([]))
    except StopIteration as stop:  # and not the RuntimeError into which a coroutine converts it
        found = stop
    assert isinstance(found, StopIteration)


@every_holder
@every_ending
async def test_a_block_gives_back_its_permits_however_it_ends(make, ending, clock):
    policy = await make_policy(make, clock)
    with pytest.raises(ending):
        async with policy:
            raise ending
    assert await policy.run(answer) == "answer"


@every_holder
@short_and_long
async def test_a_coroutine_closed_in_its_block_gives_back_its_permits(make, form, clock):
    policy = await make_policy(make, clock)

    async def use():
        async with form(policy):
            await asyncio.Event().wait()

    running = use()
    await run_to_first_wait(running)
    running.close()

    assert await policy.run(answer) == "answer"


@every_holder
@short_and_long
async def test_an_abandoned_asynchronous_generator_gives_back_its_permits(make, form, clock):
    policy = await make_policy(make, clock)

    async def generate():
        async with form(policy):
            yield 1
            yield 2

    async def take_one():
        async for _ in generate():
            break

    await asyncio.create_task(take_one())
    gc.collect()
    await settle()

    assert await policy.run(answer) == "answer"


@every_holder
def test_a_coroutine_closed_after_its_event_loop_gives_back_its_permits(make):
    clock = FakeClock()

    async def use(policy):
        async with policy:
            await asyncio.Event().wait()

    async def begin():
        policy = await make_policy(make, clock)
        running = use(policy)
        await run_to_first_wait(running)
        return policy, running

    policy, running = asyncio.run(begin())
    running.close()
    assert asyncio.run(policy.run(answer)) == "answer"


@pytest.mark.parametrize(
    "make", [POLICIES[name] for name in ("bulkhead", "adaptive-concurrency", "rate-limiter", "paced-queue")]
)
async def test_a_caller_that_is_cancelled_while_it_waits_to_enter_uses_no_permit(make, clock):
    policy = make(clock)
    is_running = asyncio.Event()
    first = asyncio.create_task(policy.run(is_running.wait))
    await settle()

    async def use():
        async with policy:
            raise AssertionError("the block began")

    waiting = asyncio.create_task(use())
    await settle()
    assert not waiting.done()
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    is_running.set()
    await first

    assert await clock.drive(policy.run(answer)) == "answer"


async def test_blocks_of_several_tasks_and_nested_blocks_each_have_their_own_permit(clock):
    timeout = Timeout(9, clock)
    outcomes = []

    async def use(seconds):
        try:
            async with timeout, timeout:
                await clock.sleep(seconds)
            outcomes.append(seconds)
        except CallTimeoutError as error:
            outcomes.append(str(error))

    await clock.drive(asyncio.gather(use(3), use(20), use(5)))
    assert outcomes == [3, 5, "the call took longer than 9 s"]


async def test_a_block_that_exceeds_its_timeout_is_stopped(clock):
    async def use():
        async with Timeout(2, clock):
            await clock.sleep(5)

    with pytest.raises(CallTimeoutError):
        await clock.drive(use())
    assert clock.monotonic() == 2


async def test_a_cancellation_and_an_outer_timeout_of_a_block_are_raised(clock):
    async def use():
        async with Timeout(9, clock):
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()

    async def use_in_time():
        async with clock.timeout(2):
            await use()

    with pytest.raises(TimeoutError):
        await clock.drive(use_in_time())
    assert clock.monotonic() == 2


async def test_a_block_waits_for_its_permit_or_is_rejected(clock):
    bulkhead = Bulkhead(BulkheadOptions(permits=1, max_waiting=1, max_wait_seconds=60), clock)
    began = []

    async def use():
        async with bulkhead:
            began.append(clock.monotonic())
            await clock.sleep(3)

    outcomes = await clock.drive(asyncio.gather(use(), use(), use(), return_exceptions=True))
    assert began == [0, 3]
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), BulkheadFullError]


async def test_a_block_counts_for_the_adaptive_limit_like_a_call(clock):
    bulkhead = Bulkhead(BulkheadOptions(permits=2), clock)
    options = AdaptiveConcurrencyOptions(round_calls=2, max_limit=4)
    policy = AdaptiveConcurrency(options, Aimd(target_seconds=1), bulkhead, clock)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            async with policy:
                raise ConnectionError
    assert policy.limit == 1


async def test_a_permit_is_for_one_block(clock):
    permit = Timeout(9, clock).permit()
    async with permit:
        pass
    with pytest.raises(RuntimeError, match="one block"):
        async with permit:
            pass


async def test_ending_a_permit_before_its_block_begins_is_an_error(clock):
    with pytest.raises(RuntimeError, match="has not begun"):
        await Timeout(9, clock).permit().__aexit__(None, None, None)


# ---------------------------------------------------------------- the breaker's permit


def breaker(clock, **arguments):
    options = CircuitBreakerOptions(failure_threshold=1, open_seconds=10)
    return CircuitBreaker("breaker", ThreadSafeBreakerStore(clock), options, clock, **arguments)


async def test_an_error_of_the_block_is_a_failure_and_the_open_breaker_rejects_the_next(clock):
    policy = breaker(clock)
    with pytest.raises(ConnectionError):
        async with policy:
            raise ConnectionError
    with pytest.raises(CircuitOpenError):
        async with policy:
            raise AssertionError("the block began")


async def test_a_block_can_be_marked_as_failed_without_an_error(clock):
    policy = breaker(clock)
    async with policy as permit:
        permit.fail(ConnectionError("status 503"))
    assert (await policy.status()).state == "OPEN"


async def test_a_marked_error_counts_like_a_raised_one(clock):
    policy = breaker(clock, is_failure=lambda error: isinstance(error, ConnectionError))
    async with policy as permit:
        permit.fail(LookupError("status 404"))
    status = await policy.status()
    assert (status.state, status.success_count) == ("CLOSED", 1)


async def test_an_error_of_the_block_takes_precedence_over_a_marked_one(clock):
    policy = breaker(clock, is_failure=lambda error: isinstance(error, ConnectionError))

    async def use():
        async with policy as permit:
            permit.fail(ConnectionError("marked"))
            raise LookupError("raised")

    with pytest.raises(LookupError, match="raised"):
        await use()
    assert (await policy.status()).failure_count == 0


async def test_a_probe_in_a_block_closes_the_breaker(clock):
    policy = await half_open(clock)
    async with policy.permit():
        with pytest.raises(CircuitOpenError):
            await policy.run(answer)
    assert (await policy.status()).state == "CLOSED"


# ---------------------------------------------------------------- other options for one call


async def test_a_retry_with_other_options_shares_its_budget(clock):
    attempts = []

    async def fail():
        attempts.append(clock.monotonic())
        raise ConnectionError

    budget = RetryBudget(share=0.1, reserve=1)
    retry = Retry(RetryOptions(attempts=3, backoff=Fixed(1)), clock, SystemRandomizer(), budget=budget)
    once = retry.with_options(attempts=1)
    with pytest.raises(ConnectionError):
        await once.run(fail)
    assert attempts == [0]
    with pytest.raises(ConnectionError):
        await clock.drive(retry.with_options(total_seconds=99).run(fail))
    assert attempts == [0, 0, 1], "the budget has one retry for both"


async def test_a_timeout_with_another_limit_does_not_change_the_first(clock):
    timeout = Timeout(9, clock)
    with pytest.raises(CallTimeoutError, match="longer than 1 s"):
        await clock.drive(timeout.with_options(seconds=1).run(lambda: clock.sleep(5)))
    await clock.drive(timeout.run(lambda: clock.sleep(5)))


async def test_a_bulkhead_with_other_options_has_the_same_permits_and_queue(clock):
    bulkhead = Bulkhead(BulkheadOptions(permits=1), clock)
    patient = bulkhead.with_options(max_waiting=1, max_wait_seconds=60)
    async with bulkhead:
        waiting = asyncio.create_task(patient.run(answer))
        await settle()
        assert (bulkhead.in_use, bulkhead.waiting, patient.in_use) == (1, 1, 1)
        with pytest.raises(BulkheadFullError):
            await bulkhead.run(answer)
    assert await waiting == "answer"


async def test_a_bulkhead_with_other_options_has_the_same_mean_hold_time(clock):
    bulkhead = Bulkhead(BulkheadOptions(permits=1), clock)
    await clock.drive(bulkhead.with_options(max_waiting=1).run(lambda: clock.sleep(11)))
    async with bulkhead:
        with pytest.raises(BulkheadFullError) as rejected:
            await bulkhead.run(answer)
    assert rejected.value.retry_after == pytest.approx(2)


async def test_a_rate_limit_with_other_options_has_the_same_quota_and_queue(clock):
    limiter = memory_rate_limiter("token_bucket", Quota(2, 2), clock)
    policy = RateLimit(limiter, RateLimitOptions("all", max_wait_seconds=60), clock)
    assert await policy.with_options(cost=2).run(answer) == "answer"
    with pytest.raises(RateLimitedError):
        await policy.with_options(max_wait_seconds=0).run(answer)
    assert await policy.with_options(key="other", max_wait_seconds=0).run(answer) == "answer"

    large = asyncio.create_task(policy.with_options(cost=2).run(answer))
    await settle()
    with pytest.raises(RateLimitedError) as rejected:
        await policy.with_options(max_wait_seconds=2.5).run(answer)
    assert rejected.value.retry_after == 3, "two units of the call before, and one of this call"
    assert await clock.drive(large) == "answer"
    assert clock.monotonic() == 2


async def test_a_cost_above_the_limit_is_refused(clock):
    policy = rate_limit(clock)
    with pytest.raises(ValueError, match="cost must be"):
        policy.with_options(cost=2)
    with pytest.raises(ValueError, match="cost must be"):
        RateLimit(
            memory_rate_limiter("token_bucket", Quota(1, 1), clock), RateLimitOptions("all", cost=2), clock
        )
    with pytest.raises(ValueError, match="cost must be"):
        RateLimitOptions("all", cost=0)


async def test_hedging_can_have_another_delay_and_number_of_attempts(clock):
    begun = []

    async def slow():
        begun.append(clock.monotonic())
        await clock.sleep(10)

    await clock.drive(Hedging(HedgingOptions(1), clock).with_options(delay_seconds=2, attempts=3).run(slow))
    assert begun == [0, 2, 4]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (POLICIES["retry"], {"attempts": 0}),
        (POLICIES["timeout"], {"seconds": 0}),
        (POLICIES["bulkhead"], {"max_wait_seconds": 0}),
        (POLICIES["rate-limiter"], {"max_wait_seconds": -1}),
        (POLICIES["hedging"], {"attempts": 1}),
    ],
)
def test_other_options_are_checked_too(make, options, clock):
    with pytest.raises(ValueError, match=next(iter(options))):
        make(clock).with_options(**options)


async def test_other_options_apply_to_a_decorator_and_a_block(clock):
    timeout = Timeout(9, clock)

    @timeout.with_options(seconds=1)
    async def call():
        await clock.sleep(5)

    async def block():
        async with timeout.with_options(seconds=1):
            await clock.sleep(5)

    for slow in (call, block):
        with pytest.raises(CallTimeoutError):
            await clock.drive(slow())
    assert clock.monotonic() == 2


# ---------------------------------------------------------------- without asyncio


class InstantBlockingClock(FakeClock):
    """A `BlockingClock` whose time passes at once."""

    async def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.jump(seconds)


def test_a_retry_runs_a_plain_function_without_an_event_loop():
    clock = InstantBlockingClock()
    retry = Retry(RetryOptions(attempts=3, backoff=Fixed(2)), clock, SystemRandomizer())
    attempts = []

    def flaky():
        attempts.append(clock.monotonic())
        if len(attempts) < 3:
            raise ConnectionError
        return "answer"

    assert retry.run_sync(flaky) == "answer"
    assert attempts == [0, 2, 4]


def test_a_breaker_counts_plain_functions_like_calls():
    clock = InstantBlockingClock()
    policy = breaker(clock)

    def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        policy.run_sync(fail)
    with pytest.raises(CircuitOpenError):
        policy.run_sync(fail)
    clock.jump(10)
    assert policy.run_sync(lambda: "answer") == "answer"
    assert asyncio.run(policy.status()).state == "CLOSED"


def test_a_plain_function_can_be_decorated_by_name():
    clock = InstantBlockingClock()
    pipeline = Pipeline(
        Fallback(always("substitute")),
        breaker(clock),
        Retry(RetryOptions(attempts=2, backoff=Fixed(1)), clock, SystemRandomizer()),
    )

    @pipeline.sync
    def price(item, *, currency):
        if item == "tea":
            return f"9.50 {currency}"
        raise ConnectionError

    assert price("tea", currency="EUR") == "9.50 EUR"
    assert price("coffee", currency="EUR") == "substitute"
    assert clock.sleeps == [1]
    assert str(inspect.signature(price)) == "(item, *, currency)"


def test_an_async_function_is_refused_without_asyncio():
    retry = POLICIES["retry"](InstantBlockingClock())
    with pytest.raises(TypeError, match="answer is an async function"):
        retry.run_sync(answer)
    with pytest.raises(TypeError, match="answer is an async function"):
        retry.sync(functools.partial(answer))


def test_a_generator_is_refused_without_asyncio():
    """Its code would run after the policy has ended."""

    def prices():
        yield 42

    async def quotes():
        yield 42

    for generator in (prices, quotes):
        with pytest.raises(TypeError, match=f"{generator.__name__} is a generator"):
            POLICIES["retry"](InstantBlockingClock()).sync(generator)


def test_a_coroutine_that_a_plain_call_returns_is_refused_and_not_retried():
    clock = InstantBlockingClock()
    with pytest.raises(TypeError, match="the call returned a coroutine; use run"):
        POLICIES["retry"](clock).run_sync(lambda: answer() or None)
    assert clock.sleeps == []


def test_the_error_of_a_retry_without_a_blocking_clock_names_the_blocking_clock():
    retry = Retry()

    def fail():
        raise ConnectionError

    with pytest.raises(RuntimeError, match="no running event loop") as raised:
        retry.run_sync(fail)
    assert "give it a BlockingClock" in raised.value.__notes__[0]


def test_a_policy_that_must_suspend_raises_an_error_with_instructions():
    class Suspend:
        def __await__(self):
            yield

    def fail():
        raise ConnectionError

    with pytest.raises(RuntimeError, match="without an event loop: give it a BlockingClock"):
        Fallback(lambda _error: Suspend()).run_sync(fail)
    with pytest.raises(RuntimeError, match="no running event loop"):
        Pipeline(Timeout(1, BlockingClock())).run_sync(lambda: 42)


def test_a_blocking_clock_blocks_the_thread():
    retry = Retry(RetryOptions(attempts=2, backoff=Fixed(0.01)), BlockingClock(), SystemRandomizer())
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        retry.run_sync(lambda: 1 / 0)
    assert time.monotonic() - began >= 0.01


def test_a_probe_without_an_event_loop_holds_its_permit_for_one_lease():
    clock = InstantBlockingClock()
    options = CircuitBreakerOptions(failure_threshold=1, open_seconds=10, probe_lease_seconds=100)
    policy = CircuitBreaker("breaker", MemoryBreakerStore(clock), options, clock)

    def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        policy.run_sync(fail)
    clock.jump(10)

    def probe():
        with pytest.raises(CircuitOpenError):
            policy.run_sync(fail)
        return "answer"

    assert policy.run_sync(probe) == "answer"


def test_only_one_of_several_threads_runs_the_probe():
    clock = InstantBlockingClock()
    policy = breaker(clock)

    def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        policy.run_sync(fail)
    clock.jump(10)
    barrier = threading.Barrier(8)
    probes, rejected = [], threading.Semaphore(0)

    def probe():
        probes.append(threading.get_ident())
        for _ in range(7):
            assert rejected.acquire(timeout=10)

    def call():
        barrier.wait()
        try:
            policy.run_sync(probe)
        except CircuitOpenError:
            rejected.release()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(probes) == 1
