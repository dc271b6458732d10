"""The common behaviour of all policies: accepted calls, released resources and event loops."""

import asyncio
import functools
import gc

import pytest

from src.resilience import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Bulkhead,
    BulkheadOptions,
    Chaos,
    ChaosOptions,
    CircuitBreaker,
    CircuitBreakerOptions,
    Fallback,
    Fixed,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    MemoryPaceStore,
    PacedQueue,
    PacedQueueOptions,
    Pipeline,
    Quota,
    RateLimit,
    RateLimitOptions,
    Retry,
    RetryOptions,
    SystemClock,
    Timeout,
    always,
    memory_rate_limiter,
)
from src.resilience.adaptive_concurrency import Aimd
from src.resilience.building_blocks.permits import Permits
from src.resilience.chaos import Fault
from src.resilience.clock import SystemRandomizer
from src.resilience.policy import AsyncPartial
from src.resilience.retry import RetryBudget
from tests.support.clock import FakeClock, settle

ONE_A_SECOND = Quota(1, 1)


def adaptive(clock):
    bulkhead = Bulkhead(BulkheadOptions(permits=1, max_waiting=9, max_wait_seconds=60), clock)
    return AdaptiveConcurrency(AdaptiveConcurrencyOptions(max_limit=1), Aimd(10), bulkhead, clock)


def breaker(clock):
    options = CircuitBreakerOptions(failure_threshold=1, open_seconds=10, probe_lease_seconds=100)
    return CircuitBreaker("breaker", MemoryBreakerStore(clock), options, clock)


def paced_queue(clock, **options):
    options = PacedQueueOptions(**options)
    return PacedQueue(options, MemoryPaceStore(options, clock), clock)


def rate_limit(clock):
    limiter = memory_rate_limiter("token_bucket", ONE_A_SECOND, clock)
    return RateLimit(limiter, RateLimitOptions("all", max_wait_seconds=60), clock)


def retry(clock, **options):
    return Retry(RetryOptions(backoff=Fixed(1)), clock, SystemRandomizer(), **options)


POLICIES = {
    "adaptive-concurrency": adaptive,
    "bulkhead": lambda clock: Bulkhead(BulkheadOptions(1, 9, 60), clock),
    "chaos": lambda clock: Chaos(ChaosOptions(Fault(ValueError), 0), clock, SystemRandomizer()),
    "circuit-breaker": breaker,
    "fallback": lambda _clock: Fallback(always("substitute")),
    "hedging": lambda clock: Hedging(HedgingOptions(1), clock),
    "paced-queue": paced_queue,
    "pipeline": lambda clock: Pipeline(Fallback(always("substitute")), retry(clock), Timeout(9, clock)),
    "empty pipeline": lambda _clock: Pipeline(),
    "rate-limiter": rate_limit,
    "retry": retry,
    "timeout": lambda clock: Timeout(9, clock),
}

every_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)


# ---------------------------------------------------------------- selection of calls


class Service:
    """A service with an asynchronous and a plain method."""

    def __init__(self):
        self.calls = 0

    def plain(self, answer="answer"):
        self.calls += 1
        return answer

    async def call(self, answer="answer"):
        return self.plain(answer)


@every_policy
@pytest.mark.parametrize("kind", ["function", "method", "partial", "generator", "async generator"])
async def test_a_plain_function_is_refused_before_it_is_run(make, kind, clock):
    service = Service()

    def function():
        return service.plain()

    def generator():
        yield service.plain()

    async def async_generator():
        yield service.plain()

    call = {
        "function": function,
        "method": service.plain,
        "partial": functools.partial(service.plain, "answer"),
        "generator": generator,
        "async generator": async_generator,
    }[kind]

    is_what = "an asynchronous generator" if call is async_generator else "a plain function"
    with pytest.raises(TypeError, match=f"is {is_what}; a policy awaits"):
        await make(clock).run(call)
    assert service.calls == 0


@every_policy
@pytest.mark.parametrize(
    "kind", ["function", "method", "partial", "lambda", "decorated", "object", "AsyncPartial"]
)
async def test_every_callable_that_returns_an_awaitable_is_run(make, kind, clock):
    service = Service()

    async def function():
        return await service.call()

    class Callable:
        def __call__(self):
            return service.call()

    def forwarding_decorator(function):
        @functools.wraps(function)
        def wrapper():
            return function()

        return wrapper

    call = {
        "function": function,
        "method": service.call,
        "partial": functools.partial(service.call, "answer"),
        "lambda": lambda: service.call(),  # noqa: PLW0108 -- a lambda is what this is about
        "decorated": forwarding_decorator(function),
        "object": Callable(),
        "AsyncPartial": AsyncPartial(service.call),
    }[kind]

    assert await clock.drive(make(clock).run(call)) == "answer"
    assert service.calls == 1


@every_policy
async def test_a_lambda_that_returns_no_awaitable_is_run_once_and_its_error_is_not_replaced(make, clock):
    service = Service()
    with pytest.raises(TypeError, match="await"):
        await clock.drive(make(clock).run(lambda: service.plain()))  # noqa: PLW0108
    assert service.calls == 1


async def test_the_type_error_for_a_plain_function_does_not_count_as_a_failure(clock):
    policy = breaker(clock)
    with pytest.raises(TypeError):
        await policy.run(lambda: 42)
    assert (await policy.status()).failure_count == 0


async def test_a_type_error_of_the_call_itself_counts_as_a_failure(clock):
    async def call():
        raise TypeError("of the call")

    assert await Fallback(always("substitute")).run(call) == "substitute"


def test_a_decorated_function_must_be_asynchronous():
    def plain():
        return 42

    with pytest.raises(TypeError, match="plain is a plain function"):
        Pipeline()(plain)


# ---------------------------------------------------------------- released resources


class UnknownBaseException(BaseException):
    """A base exception that no policy handles."""


async def answer():
    return "answer"


every_ending = pytest.mark.parametrize(
    "ending", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, UnknownBaseException]
)
"""The ways in which a call can end that are no outcome of it."""


async def run_to_first_wait(coroutine):
    """Run a coroutine until it waits."""
    coroutine.send(None)
    await asyncio.sleep(0)


async def half_open(clock):
    """Return a breaker whose next call is its only probe."""
    policy = breaker(clock)

    async def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await policy.run(fail)
    clock.jump(10)
    return policy


HOLDERS = {
    "bulkhead": POLICIES["bulkhead"],
    "adaptive-concurrency": adaptive,
    "circuit-breaker": half_open,
}

every_holder = pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)


async def make_policy(make, clock):
    policy = make(clock)
    return await policy if asyncio.iscoroutine(policy) else policy


@every_holder
@every_ending
async def test_a_call_gives_back_its_permits_however_it_ends(make, ending, clock):
    policy = await make_policy(make, clock)

    async def call():
        raise ending

    with pytest.raises(ending):
        await policy.run(call)

    assert await policy.run(answer) == "answer"


@every_holder
async def test_a_closed_coroutine_gives_back_its_permits(make, clock):
    policy = await make_policy(make, clock)
    running = policy.run(asyncio.Event().wait)
    await run_to_first_wait(running)

    running.close()

    assert await policy.run(answer) == "answer"


async def test_a_probe_gives_its_permit_back_if_the_failure_predicate_raises(clock):
    options = CircuitBreakerOptions(failure_threshold=1, open_seconds=10, probe_lease_seconds=100)

    def judge(error):
        if isinstance(error, LookupError):
            raise UnknownBaseException
        return True

    policy = CircuitBreaker("breaker", MemoryBreakerStore(clock), options, clock, is_failure=judge)
    for error, raised in ((ConnectionError, ConnectionError), (LookupError, UnknownBaseException)):

        async def fail(error=error):
            raise error

        with pytest.raises(raised):
            await policy.run(fail)
        clock.jump(10)
    assert await policy.run(answer) == "answer"


async def test_a_probe_gives_its_permit_back_if_the_listener_raises(clock):
    events = []

    def listener(event):
        events.append(type(event).__name__)
        if events.count("ProbeStarted") == 1 and events[-1] == "ProbeStarted":
            raise SystemExit

    policy = await half_open(clock)
    policy._listener = listener
    with pytest.raises(SystemExit):
        await policy.run(answer)
    assert await policy.run(answer) == "answer"


@pytest.mark.parametrize("make", [POLICIES["bulkhead"], adaptive], ids=["bulkhead", "adaptive-concurrency"])
@pytest.mark.parametrize("has_permit", [False, True], ids=["in the queue", "its permit has just come"])
async def test_a_coroutine_closed_while_it_waits_takes_no_permit(make, has_permit, clock):
    policy = make(clock)
    under_way = asyncio.Event()
    first = asyncio.create_task(policy.run(under_way.wait))
    await settle()
    waiting = policy.run(answer)
    await run_to_first_wait(waiting)
    if has_permit:
        under_way.set()
        while not first.done():
            await asyncio.sleep(0)

    waiting.close()
    under_way.set()
    await first

    assert await policy.run(answer) == "answer"


@pytest.mark.parametrize("is_next", [False, True], ids=["asleep", "behind"])
async def test_a_coroutine_closed_while_it_waits_for_a_unit_does_not_delay_other_calls(is_next, clock):
    policy = rate_limit(clock)
    await policy.run(answer)
    waiting = [policy.run(answer) for _ in range(2)]
    for each in waiting:
        await run_to_first_wait(each)
    later = asyncio.create_task(policy.run(answer))
    await settle()

    waiting[is_next].close()
    waiting[not is_next].close()

    assert await clock.drive(later) == "answer"
    assert clock.monotonic() == 1


@pytest.mark.parametrize("has_slot", [False, True], ids=["in the queue", "its slot has just come"])
async def test_a_coroutine_closed_in_a_paced_queue_uses_no_slot(has_slot, clock):
    policy = paced_queue(clock, capacity=1)
    await policy.run(answer)
    waiting = policy.run(answer)
    await run_to_first_wait(waiting)
    await settle()
    assert (await policy.status()).size == 1
    if has_slot:
        await clock.advance(1)

    waiting.close()
    await settle()

    assert (await policy.status()).size == 0
    assert await clock.drive(policy.run(answer)) == "answer"
    assert clock.monotonic() == 1


async def test_a_listener_that_raises_system_exit_uses_no_slot(clock):
    policy = paced_queue(clock)

    def listener(event):
        raise SystemExit

    policy._listener = listener
    with pytest.raises(SystemExit):
        await policy.run(answer)
    policy._listener = lambda event: None
    assert await clock.drive(policy.run(answer)) == "answer"
    assert clock.monotonic() == 0


@pytest.mark.parametrize("ending", [asyncio.CancelledError, UnknownBaseException])
async def test_a_hedged_call_leaves_no_attempt_running_however_it_ends(ending, clock):
    attempts = []

    async def call():
        attempts.append(asyncio.current_task())
        if len(attempts) == 1:
            await clock.sleep(2)
            raise ending
        await asyncio.Event().wait()

    with pytest.raises(ending):
        await clock.drive(Hedging(HedgingOptions(1), clock).run(call))
    assert attempts[1].cancelled()


async def test_a_hedged_call_that_is_closed_cancels_the_other_attempts(clock):
    attempts = []

    async def call():
        attempts.append(asyncio.current_task())
        await asyncio.Event().wait()

    running = Hedging(HedgingOptions(1), clock).run(call)
    await run_to_first_wait(running)
    await clock.advance(1)
    running.close()
    await settle()
    assert attempts[1].cancelled()


async def test_a_retry_that_is_not_made_costs_no_token(clock):
    budget = RetryBudget(share=0.1, reserve=1)
    policy = retry(clock, budget=budget)

    async def fail():
        raise ConnectionError

    waiting = asyncio.create_task(policy.run(fail))
    await settle()
    assert not budget.take_retry(), "the units were taken"
    waiting.cancel()
    await settle()

    assert budget.take_retry()


def test_permits_are_given_back_after_the_end_of_the_event_loop():
    permits = Permits(1)

    async def hold():
        assert permits.try_take()
        try:
            await asyncio.Event().wait()
        finally:
            permits.give_back()

    loop = asyncio.new_event_loop()
    holder, waiting = hold(), permits.wait()
    loop.call_soon(holder.send, None)
    loop.call_soon(waiting.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    holder.close()
    assert permits.in_use == 0
    waiting.close()
    assert permits.waiting == 0
    gc.collect()


# ---------------------------------------------------------------- on how many event loops


def run_on_a_new_loop(policy, calls=3):
    """Make concurrent calls on a new event loop."""

    async def make_calls():
        return await asyncio.gather(*(policy.run(answer) for _ in range(calls)))

    return asyncio.run(asyncio.wait_for(make_calls(), 10))


QUICK = {
    **POLICIES,
    "rate-limiter": lambda clock: RateLimit(
        memory_rate_limiter("leaky_bucket", Quota(1, 0.005), clock), RateLimitOptions("all", 9), clock
    ),
    "paced-queue": lambda clock: paced_queue(clock, interval_seconds=0.005),
}


@pytest.mark.parametrize("make", QUICK.values(), ids=QUICK)
def test_a_policy_works_on_consecutive_event_loops(make):
    policy = make(SystemClock())
    for _ in range(3):
        assert run_on_a_new_loop(policy) == ["answer"] * 3


QUEUES = {name: POLICIES[name] for name in ("bulkhead", "rate-limiter", "paced-queue")}


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_callers_of_a_closed_event_loop_do_not_delay_others(make):
    clock = FakeClock()
    policy = make(clock)
    callers = []

    async def leave_two_waiting_callers():
        callers.extend(policy.run(asyncio.Event().wait) for _ in range(3))
        for caller in callers[1:]:
            await run_to_first_wait(caller)

    async def call_on_second_loop():
        return await clock.drive(policy.run(answer))

    # The loop is closed while its tasks are pending, as at the end of a program.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(leave_two_waiting_callers())
    finally:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop.close()
    for caller in callers:
        caller.close()

    assert asyncio.run(call_on_second_loop()) == "answer"


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_a_caller_that_would_wait_for_another_event_loop_is_rejected_at_once(make):
    clock = FakeClock()
    policy = make(clock)

    async def hold():
        await policy.run(answer)
        holder = asyncio.create_task(policy.run(asyncio.Event().wait))
        await settle()
        return holder

    async def call_on_second_loop():
        with pytest.raises(RuntimeError, match="event loop"):
            await policy.run(answer)

    async def cancel(task):
        task.cancel()
        await settle()

    with asyncio.Runner() as runner:
        holder = runner.run(hold())
        asyncio.run(call_on_second_loop())
        runner.run(cancel(holder))
        assert runner.run(clock.drive(policy.run(answer))) == "answer"


def test_a_free_permit_can_be_taken_on_any_event_loop():
    policy = Bulkhead(BulkheadOptions(permits=2), FakeClock())

    async def hold():
        holder = asyncio.create_task(policy.run(asyncio.Event().wait))
        await settle()
        return holder

    async def call_on_second_loop():
        assert await policy.run(answer) == "answer"

    async def cancel(task):
        task.cancel()
        await settle()

    with asyncio.Runner() as runner:
        holder = runner.run(hold())
        asyncio.run(call_on_second_loop())
        runner.run(cancel(holder))


@pytest.mark.parametrize("make", QUEUES.values(), ids=QUEUES)
def test_a_second_event_loop_is_rejected_while_callers_wait_on_the_first(make):
    clock = FakeClock()
    policy = make(clock)

    async def wait_without_result():
        first = asyncio.create_task(policy.run(asyncio.Event().wait))
        await settle()
        waiting = [asyncio.create_task(policy.run(answer)) for _ in range(2)]
        await settle()
        assert not any(caller.done() for caller in waiting)
        return first, *waiting

    async def call_on_second_loop():
        with pytest.raises(RuntimeError, match="event loop"):
            await policy.run(answer)

    async def cancel(tasks):
        for task in tasks:
            task.cancel()
        await settle()

    with asyncio.Runner() as runner:
        tasks = runner.run(wait_without_result())
        asyncio.run(call_on_second_loop())
        runner.run(cancel(tasks))


@pytest.mark.parametrize(
    "wrong", [[Timeout(1)], Timeout, None, answer], ids=["list", "class", "None", "call"]
)
def test_a_pipeline_is_made_of_policies(wrong):
    with pytest.raises(TypeError, match=r"policies must have an async run\(call\), unlike"):
        Pipeline(Timeout(1), wrong)
