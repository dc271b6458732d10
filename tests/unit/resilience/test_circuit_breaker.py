"""The circuit breaker as a policy: what it lets through, how it judges, and what it tells.

What opens and closes it is the contract of its stores, tests/contract/test_breaker_store.py.
"""

import asyncio

import pytest

from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.store import BreakerState
from src.resilience.errors import BulkheadFullError, CircuitOpenError
from src.resilience.events import OutcomeLost, ProbeStarted, Rejected, StateChanged, WouldHaveOpened
from tests.support.clock import settle

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class UpstreamError(Exception):
    """What the upstream raises."""


class NotFoundError(Exception):
    """What the upstream raises when it is well and the caller is wrong."""


@pytest.fixture
def make(clock, listener):
    def make(is_failure=None, **options):
        judge = {} if is_failure is None else {"is_failure": is_failure}
        return CircuitBreaker(
            "upstream",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(**{"failure_threshold": 1, "open_seconds": 10, **options}),
            clock,
            listener=listener,
            **judge,
        )

    return make


async def succeed():
    return "answer"


async def run_failing(breaker, error=None):
    """Run a call that raises `error`, and let nothing else pass."""
    error = error or UpstreamError()

    async def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        await breaker.run(fail)
    assert caught.value is error


async def counts(breaker):
    status = await breaker.status()
    return status.failure_count, status.success_count


# ---------------------------------------------------------------- running


async def test_closed_it_hands_back_what_the_call_returned(make):
    assert await make().run(succeed) == "answer"


async def test_open_it_does_not_begin_the_call(make):
    breaker = make()
    await run_failing(breaker)
    begun = False

    async def call():
        nonlocal begun
        begun = True

    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(call)

    assert not begun
    assert (caught.value.policy, caught.value.retry_after) == ("upstream", 10)


async def test_it_goes_from_closed_over_open_and_half_open_back_to_closed(make, clock):
    breaker = make()
    seen = [(await breaker.status()).state]
    await run_failing(breaker)
    seen.append((await breaker.status()).state)
    clock.jump(10)
    seen.append((await breaker.status()).state)
    await breaker.run(succeed)
    seen.append((await breaker.status()).state)
    assert seen == [CLOSED, OPEN, HALF_OPEN, CLOSED]


async def test_retry_after_counts_down(make, clock):
    breaker = make()
    await run_failing(breaker)
    seen = []
    for _ in range(3):
        seen.append((await breaker.status()).retry_after)
        clock.jump(5)
    assert seen == [10, 5, None]


async def test_a_call_that_takes_long_enough_is_slow(make, clock):
    breaker = make(failure_threshold=None, slow_call_rate_threshold=1, slow_call_seconds=2, minimum_calls=1)

    async def take(seconds):
        clock.jump(seconds)

    await breaker.run(lambda: take(1.75))
    assert (await breaker.status()).state is CLOSED
    await breaker.close()
    await breaker.run(lambda: take(2))
    assert (await breaker.status()).state is OPEN


async def test_breakers_of_one_name_in_one_store_share_their_state(clock):
    store, options = MemoryBreakerStore(clock), CircuitBreakerOptions(failure_threshold=1)
    one, other = (CircuitBreaker("upstream", store, options, clock) for _ in range(2))
    await run_failing(one)
    with pytest.raises(CircuitOpenError):
        await other.run(succeed)


# ---------------------------------------------------------------- judging


async def test_an_error_judged_no_failure_is_a_success(make):
    breaker = make(is_failure=lambda error: not isinstance(error, NotFoundError))
    await run_failing(breaker, NotFoundError())
    assert await counts(breaker) == (0, 1)
    await run_failing(breaker)
    assert await counts(breaker) == (1, 1)


async def test_errors_of_these_classes_are_failures_and_others_successes(make):
    breaker = make(is_failure=(ConnectionError, TimeoutError), failure_threshold=2)
    for error in (ConnectionError(), NotFoundError(), TimeoutError()):
        await run_failing(breaker, error)
    assert (await breaker.status()).failure_count == 1
    await run_failing(breaker, ConnectionError())
    assert (await breaker.status()).state == "OPEN"


async def test_beside_classes_of_failures_a_rejection_further_in_is_still_neither(make):
    breaker = make(is_failure=ConnectionError, failure_threshold=2)
    for error in (ConnectionError(), BulkheadFullError("inner", "full", 1), ConnectionError()):
        await run_failing(breaker, error)
    assert (await breaker.status()).state == "OPEN"


def test_what_judges_no_errors_is_refused(make):
    with pytest.raises(TypeError, match="is_failure must be a function or exception classes, not"):
        make(is_failure=["ConnectionError"])


async def test_an_excluded_error_is_neither_success_nor_failure(make):
    breaker = make(is_failure=lambda _: None)
    await run_failing(breaker)
    assert await counts(breaker) == (0, 0)


async def test_a_rejection_further_in_says_nothing_of_the_service(make):
    breaker = make()
    await run_failing(breaker, BulkheadFullError("bulkhead", "full", 1.0))
    assert await counts(breaker) == (0, 0)


async def test_an_excluded_probe_gives_its_permit_back(make, clock):
    breaker = make(is_failure=lambda error: None if isinstance(error, NotFoundError) else True)
    await run_failing(breaker)
    clock.jump(10)
    await run_failing(breaker, NotFoundError())
    assert (await breaker.status()).state is HALF_OPEN
    await breaker.run(succeed)
    assert (await breaker.status()).state is CLOSED


async def test_a_cancelled_call_is_neither_and_gives_its_permit_back(make, clock):
    breaker = make()
    await run_failing(breaker)
    clock.jump(10)
    probe = asyncio.ensure_future(breaker.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpenError):
        await breaker.run(succeed)

    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe

    assert await counts(breaker) == (1, 0)
    assert await breaker.run(succeed) == "answer"


# ---------------------------------------------------------------- by hand


async def test_forced_open_it_rejects_until_closed_by_hand(make, clock):
    breaker = make()
    await breaker.force_open()
    clock.jump(1000)
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.retry_after is None, "no time is promised: only an order closes it"
    assert str(caught.value) == "upstream: the circuit is forced open"

    await breaker.close()
    assert await breaker.run(succeed) == "answer"


async def test_forced_open_during_a_call_it_does_not_mind_that_the_call_is_cancelled(make):
    breaker = make()
    call = asyncio.ensure_future(breaker.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    await breaker.force_open()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await breaker.status()).state is OPEN


async def test_forced_closed_it_lets_everything_through(make):
    breaker = make()
    await breaker.force_closed()
    for _ in range(3):
        await run_failing(breaker)
    assert (await breaker.status()).state is CLOSED


async def test_a_result_from_before_it_was_forced_open_does_not_close_it(make):
    breaker = make()
    answer = asyncio.Event()
    late = asyncio.ensure_future(breaker.run(answer.wait))
    await asyncio.sleep(0)
    await breaker.force_open()
    answer.set()
    await late
    assert (await breaker.status()).state is OPEN


# ---------------------------------------------------------------- telling


async def test_it_sends_an_event_for_every_change_probe_and_rejection(make, clock, listener):
    breaker = make()
    await run_failing(breaker)
    with pytest.raises(CircuitOpenError):
        await breaker.run(succeed)
    clock.jump(10)
    await breaker.run(succeed)
    await breaker.force_open()

    assert listener.events == [
        StateChanged(policy="upstream", before=CLOSED, after=OPEN, reason="failures in a row: 1"),
        Rejected(policy="upstream", retry_after=10),
        StateChanged(policy="upstream", before=OPEN, after=HALF_OPEN, reason="the open time is over"),
        ProbeStarted(policy="upstream"),
        StateChanged(policy="upstream", before=HALF_OPEN, after=CLOSED, reason="probes succeeded: 1"),
        StateChanged(policy="upstream", before=CLOSED, after=OPEN, reason="forced open"),
    ]


async def test_forcing_the_current_state_sends_no_event(make, listener):
    await make().close()
    assert listener.events == []


# ---------------------------------------------------------------- a store that fails in mid-call


class AwayError(Exception):
    """The store is away."""


class StoreThatGoesAway(MemoryBreakerStore):
    """Admits calls, and is away when told to be."""

    is_away = False

    async def record(self, name, options, ticket, *, failed, slow):
        if self.is_away:
            raise AwayError
        return await super().record(name, options, ticket, failed=failed, slow=slow)

    async def renew(self, name, options, ticket):
        if self.is_away:
            raise AwayError
        return await super().renew(name, options, ticket)


@pytest.fixture
def store(clock):
    return StoreThatGoesAway(clock)


@pytest.fixture
def on_store(store, clock, listener):
    def on_store(**options):
        options = CircuitBreakerOptions(**{"failure_threshold": 1, "open_seconds": 10, **options})
        return CircuitBreaker("upstream", store, options, clock, listener=listener)

    return on_store


async def test_an_answer_is_an_answer_though_the_store_cannot_count_it(on_store, store, listener):
    breaker = on_store()
    store.is_away = True
    assert await breaker.run(succeed) == "answer"
    (lost,) = listener.of(OutcomeLost)
    assert (lost.policy, type(lost.error)) == ("upstream", AwayError)


async def test_an_error_of_the_call_is_not_replaced_by_the_stores(on_store, store, listener):
    breaker = on_store()
    store.is_away = True
    await run_failing(breaker)
    assert len(listener.of(OutcomeLost)) == 1

    store.is_away = False
    assert (await breaker.status()).failure_count == 0


# ---------------------------------------------------------------- a probe that takes its time


async def half_open_with_a_probe(breaker, clock, seconds, outcome="answer"):
    """Open the breaker, wait for its probe, and let that take so long."""

    async def probe():
        await clock.sleep(seconds)
        return outcome

    await run_failing(breaker)
    clock.jump(10)
    probing = asyncio.create_task(breaker.run(probe))
    await settle()
    return probing


async def test_a_probe_that_lives_keeps_its_permit_for_as_long_as_it_may_take(on_store, clock):
    breaker = on_store(probe_lease_seconds=35)
    probing = await half_open_with_a_probe(breaker, clock, 34)
    for _ in range(33):
        await clock.advance(1)
        with pytest.raises(CircuitOpenError):
            await breaker.run(succeed)
    await clock.advance(1)
    assert probing.result() == "answer"
    assert (await breaker.status()).state == CLOSED


async def test_a_probe_that_never_ends_loses_its_permit_after_that(on_store, clock):
    breaker = on_store(probe_lease_seconds=35)
    probing = await half_open_with_a_probe(breaker, clock, 1000)
    await clock.advance(35)
    assert await breaker.run(succeed) == "answer"
    probing.cancel()


async def test_a_probe_whose_permit_cannot_be_renewed_continues(on_store, store, clock, caplog):
    breaker = on_store(probe_lease_seconds=35)
    probing = await half_open_with_a_probe(breaker, clock, 8)
    store.is_away = True
    await clock.advance(5)
    store.is_away = False
    await clock.advance(3)
    assert probing.result() == "answer"
    assert [record.message for record in caplog.records] == ["lease_not_renewed"]


async def test_a_probe_that_has_ended_renews_nothing(on_store, clock, monkeypatch):
    breaker, renewed = on_store(probe_lease_seconds=35), []
    renew = breaker._store.renew
    monkeypatch.setattr(breaker._store, "renew", lambda *args: renewed.append(args) or renew(*args))
    probing = await half_open_with_a_probe(breaker, clock, 4)
    await clock.advance(4)
    assert probing.result() == "answer"
    assert len(renewed) == 1
    await clock.advance(100)
    assert len(renewed) == 1


async def test_a_lease_that_lasts_as_long_as_a_probe_may_take_is_not_renewed(on_store, clock, monkeypatch):
    breaker, renewed = on_store(probe_lease_seconds=10), []
    monkeypatch.setattr(breaker._store, "renew", lambda *args: renewed.append(args))
    probing = await half_open_with_a_probe(breaker, clock, 9)
    await clock.advance(9)
    assert probing.result() == "answer"
    assert renewed == []


# ---------------------------------------------------------------- the error that opened it


async def test_a_rejection_names_the_failure_that_opened_the_breaker_as_its_cause(make):
    breaker, error = make(), UpstreamError("no route")
    await run_failing(breaker, error)
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.__cause__ is error


async def test_a_failure_from_before_the_breaker_was_closed_is_no_cause(make, clock):
    breaker = make()
    await run_failing(breaker)
    clock.jump(10)
    await breaker.run(succeed)
    await breaker.force_open()
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.__cause__ is None


async def test_an_error_that_is_no_failure_is_no_cause(make):
    breaker = make(is_failure=lambda error: not isinstance(error, NotFoundError))
    await run_failing(breaker, NotFoundError())
    await breaker.force_open()
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.__cause__ is None


# ---------------------------------------------------------------- by hand, for a time


async def test_opened_by_hand_for_a_time_it_names_that_time_and_then_probes(make, clock, listener):
    breaker = make()
    await breaker.force_open(3600)
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.retry_after == 3600
    clock.jump(3600)
    assert await breaker.run(succeed) == "answer"
    assert (await breaker.status()).state == CLOSED


@pytest.mark.parametrize("seconds", [0, -1, 0.0001, float("inf"), float("nan")])
async def test_a_time_out_of_range_is_refused(make, seconds):
    breaker = make()
    with pytest.raises(ValueError, match=r"seconds must be finite and at least 0\.001"):
        await breaker.force_open(seconds)
    assert (await breaker.status()).state == CLOSED


async def test_forced_closed_the_listener_receives_when_it_would_have_opened(make, listener):
    breaker = make(failure_threshold=2)
    await breaker.force_closed()
    for _ in range(4):
        await run_failing(breaker)
    would = WouldHaveOpened(policy="upstream", reason="failures in a row: 2")
    assert [event for event in listener.events if isinstance(event, WouldHaveOpened)] == [would]
