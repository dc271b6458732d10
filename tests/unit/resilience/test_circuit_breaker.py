"""The circuit breaker as a policy: allowed calls, counted failures and events.

The contract of its stores, tests/contract/test_breaker_store.py, covers when the breaker opens and closes.
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
    """An error of the upstream."""


class NotFoundError(Exception):
    """An error of the caller, which is no failure of the upstream."""


@pytest.fixture
def make_breaker(clock, listener):
    def make_breaker(is_failure=None, **options):
        judge = {} if is_failure is None else {"is_failure": is_failure}
        return CircuitBreaker(
            "upstream",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(**{"failure_threshold": 1, "open_seconds": 10, **options}),
            clock,
            listener=listener,
            **judge,
        )

    return make_breaker


async def succeed():
    return "answer"


async def run_failing(breaker, error=None):
    """Run a call that raises `error`, and require that `run` raises this error."""
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


async def test_a_closed_breaker_returns_the_result_of_the_call(make_breaker):
    assert await make_breaker().run(succeed) == "answer"


async def test_an_open_breaker_does_not_begin_the_call(make_breaker):
    breaker = make_breaker()
    await run_failing(breaker)
    begun = False

    async def call():
        nonlocal begun
        begun = True

    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(call)

    assert not begun
    assert (caught.value.policy, caught.value.retry_after) == ("upstream", 10)


async def test_a_breaker_opens_and_a_successful_probe_closes_it(make_breaker, clock):
    breaker = make_breaker()
    seen = [(await breaker.status()).state]
    await run_failing(breaker)
    seen.append((await breaker.status()).state)
    clock.jump(10)
    seen.append((await breaker.status()).state)
    await breaker.run(succeed)
    seen.append((await breaker.status()).state)
    assert seen == [CLOSED, OPEN, HALF_OPEN, CLOSED]


async def test_retry_after_counts_down(make_breaker, clock):
    breaker = make_breaker()
    await run_failing(breaker)
    seen = []
    for _ in range(3):
        seen.append((await breaker.status()).retry_after)
        clock.jump(5)
    assert seen == [10, 5, None]


async def test_a_call_that_takes_long_enough_is_slow(make_breaker, clock):
    breaker = make_breaker(
        failure_threshold=None, slow_call_rate_threshold=1, slow_call_seconds=2, minimum_calls=1
    )

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


async def test_an_error_that_is_no_failure_counts_as_a_success(make_breaker):
    breaker = make_breaker(is_failure=lambda error: not isinstance(error, NotFoundError))
    await run_failing(breaker, NotFoundError())
    assert await counts(breaker) == (0, 1)
    await run_failing(breaker)
    assert await counts(breaker) == (1, 1)


async def test_errors_of_these_classes_are_failures_and_others_successes(make_breaker):
    breaker = make_breaker(is_failure=(ConnectionError, TimeoutError), failure_threshold=2)
    for error in (ConnectionError(), NotFoundError(), TimeoutError()):
        await run_failing(breaker, error)
    assert (await breaker.status()).failure_count == 1
    await run_failing(breaker, ConnectionError())
    assert (await breaker.status()).state == "OPEN"


async def test_beside_classes_of_failures_a_rejection_further_in_is_still_neither(make_breaker):
    breaker = make_breaker(is_failure=ConnectionError, failure_threshold=2)
    for error in (ConnectionError(), BulkheadFullError("inner", "full", 1), ConnectionError()):
        await run_failing(breaker, error)
    assert (await breaker.status()).state == "OPEN"


def test_an_is_failure_that_is_no_function_or_class_raises_an_error(make_breaker):
    with pytest.raises(TypeError, match="is_failure must be a function or exception classes, not"):
        make_breaker(is_failure=["ConnectionError"])


async def test_an_excluded_error_is_neither_success_nor_failure(make_breaker):
    breaker = make_breaker(is_failure=lambda _: None)
    await run_failing(breaker)
    assert await counts(breaker) == (0, 0)


async def test_a_rejection_by_an_inner_policy_does_not_count(make_breaker):
    breaker = make_breaker()
    await run_failing(breaker, BulkheadFullError("bulkhead", "full", 1.0))
    assert await counts(breaker) == (0, 0)


async def test_an_excluded_probe_gives_its_permit_back(make_breaker, clock):
    breaker = make_breaker(is_failure=lambda error: None if isinstance(error, NotFoundError) else True)
    await run_failing(breaker)
    clock.jump(10)
    await run_failing(breaker, NotFoundError())
    assert (await breaker.status()).state is HALF_OPEN
    await breaker.run(succeed)
    assert (await breaker.status()).state is CLOSED


async def test_a_cancelled_call_does_not_count_and_gives_its_permit_back(make_breaker, clock):
    breaker = make_breaker()
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


async def test_a_breaker_that_is_forced_open_rejects_until_it_is_reset(make_breaker, clock):
    breaker = make_breaker()
    await breaker.force_open()
    clock.jump(1000)
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.retry_after is None, "there is no retry time: only an operator closes it"
    assert str(caught.value) == "upstream: the circuit is forced open"

    await breaker.close()
    assert await breaker.run(succeed) == "answer"


async def test_a_call_can_be_cancelled_after_the_breaker_was_forced_open(make_breaker):
    breaker = make_breaker()
    call = asyncio.ensure_future(breaker.run(asyncio.Event().wait))
    await asyncio.sleep(0)
    await breaker.force_open()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await breaker.status()).state is OPEN


async def test_a_breaker_that_is_forced_closed_runs_every_call(make_breaker):
    breaker = make_breaker()
    await breaker.force_closed()
    for _ in range(3):
        await run_failing(breaker)
    assert (await breaker.status()).state is CLOSED


async def test_a_late_result_does_not_close_a_breaker_that_was_forced_open(make_breaker):
    breaker = make_breaker()
    answer = asyncio.Event()
    late = asyncio.ensure_future(breaker.run(answer.wait))
    await asyncio.sleep(0)
    await breaker.force_open()
    answer.set()
    await late
    assert (await breaker.status()).state is OPEN


# ---------------------------------------------------------------- events


async def test_it_sends_an_event_for_every_change_probe_and_rejection(make_breaker, clock, listener):
    breaker = make_breaker()
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


async def test_forcing_the_current_state_sends_no_event(make_breaker, listener):
    await make_breaker().close()
    assert listener.events == []


# ---------------------------------------------------------------- a store that fails in mid-call


class UnavailableError(Exception):
    """The store is unavailable."""


class StoreWithOutage(MemoryBreakerStore):
    """A store that a test can make unavailable after it has admitted a call."""

    is_away = False

    async def record(self, name, options, ticket, *, failed, slow):
        if self.is_away:
            raise UnavailableError
        return await super().record(name, options, ticket, failed=failed, slow=slow)

    async def renew(self, name, options, ticket):
        if self.is_away:
            raise UnavailableError
        return await super().renew(name, options, ticket)


@pytest.fixture
def store(clock):
    return StoreWithOutage(clock)


@pytest.fixture
def on_store(store, clock, listener):
    def on_store(**options):
        options = CircuitBreakerOptions(**{"failure_threshold": 1, "open_seconds": 10, **options})
        return CircuitBreaker("upstream", store, options, clock, listener=listener)

    return on_store


async def test_a_result_is_returned_if_the_store_cannot_record_it(on_store, store, listener):
    breaker = on_store()
    store.is_away = True
    assert await breaker.run(succeed) == "answer"
    (lost,) = listener.of(OutcomeLost)
    assert (lost.policy, type(lost.error)) == ("upstream", UnavailableError)


async def test_an_error_of_the_call_is_raised_if_the_store_cannot_record_it(on_store, store, listener):
    breaker = on_store()
    store.is_away = True
    await run_failing(breaker)
    assert len(listener.of(OutcomeLost)) == 1

    store.is_away = False
    assert (await breaker.status()).failure_count == 0


# ---------------------------------------------------------------- a probe that takes its time


async def half_open_with_a_probe(breaker, clock, seconds, outcome="answer"):
    """Open the breaker, and run a probe of the given duration."""

    async def probe():
        await clock.sleep(seconds)
        return outcome

    await run_failing(breaker)
    clock.jump(10)
    probing = asyncio.create_task(breaker.run(probe))
    await settle()
    return probing


async def test_a_running_probe_keeps_its_permit_for_the_longest_probe_time(on_store, clock):
    breaker = on_store(probe_lease_seconds=35)
    probing = await half_open_with_a_probe(breaker, clock, 34)
    for _ in range(33):
        await clock.advance(1)
        with pytest.raises(CircuitOpenError):
            await breaker.run(succeed)
    await clock.advance(1)
    assert probing.result() == "answer"
    assert (await breaker.status()).state == CLOSED


async def test_a_probe_loses_its_permit_after_the_longest_probe_time(on_store, clock):
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


async def test_an_ended_probe_does_not_renew_its_lease(on_store, clock, monkeypatch):
    breaker, renewed = on_store(probe_lease_seconds=35), []
    renew = breaker._store.renew
    monkeypatch.setattr(breaker._store, "renew", lambda *args: renewed.append(args) or renew(*args))
    probing = await half_open_with_a_probe(breaker, clock, 4)
    await clock.advance(4)
    assert probing.result() == "answer"
    assert len(renewed) == 1
    await clock.advance(100)
    assert len(renewed) == 1


async def test_a_lease_as_long_as_the_longest_probe_time_is_not_renewed(on_store, clock, monkeypatch):
    breaker, renewed = on_store(probe_lease_seconds=10), []
    monkeypatch.setattr(breaker._store, "renew", lambda *args: renewed.append(args))
    probing = await half_open_with_a_probe(breaker, clock, 9)
    await clock.advance(9)
    assert probing.result() == "answer"
    assert renewed == []


# ---------------------------------------------------------------- the error that opened it


async def test_a_rejection_names_the_failure_that_opened_the_breaker_as_its_cause(make_breaker):
    breaker, error = make_breaker(), UpstreamError("no route")
    await run_failing(breaker, error)
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.__cause__ is error


async def test_a_failure_from_before_the_breaker_closed_is_not_the_cause(make_breaker, clock):
    breaker = make_breaker()
    await run_failing(breaker)
    clock.jump(10)
    await breaker.run(succeed)
    await breaker.force_open()
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.__cause__ is None


async def test_an_error_that_is_no_failure_is_not_the_cause(make_breaker):
    breaker = make_breaker(is_failure=lambda error: not isinstance(error, NotFoundError))
    await run_failing(breaker, NotFoundError())
    await breaker.force_open()
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.__cause__ is None


# ---------------------------------------------------------------- by hand, for a time


async def test_a_breaker_forced_open_for_a_time_names_the_time_and_then_probes(make_breaker, clock, listener):
    breaker = make_breaker()
    await breaker.force_open(3600)
    with pytest.raises(CircuitOpenError) as caught:
        await breaker.run(succeed)
    assert caught.value.retry_after == 3600
    clock.jump(3600)
    assert await breaker.run(succeed) == "answer"
    assert (await breaker.status()).state == CLOSED


@pytest.mark.parametrize("seconds", [0, -1, 0.0001, float("inf"), float("nan")])
async def test_a_forced_time_out_of_range_is_rejected(make_breaker, seconds):
    breaker = make_breaker()
    with pytest.raises(ValueError, match=r"seconds must be finite and at least 0\.001"):
        await breaker.force_open(seconds)
    assert (await breaker.status()).state == CLOSED


async def test_a_breaker_that_is_forced_closed_reports_when_it_would_open(make_breaker, listener):
    breaker = make_breaker(failure_threshold=2)
    await breaker.force_closed()
    for _ in range(4):
        await run_failing(breaker)
    would = WouldHaveOpened(policy="upstream", reason="failures in a row: 2")
    assert [event for event in listener.events if isinstance(event, WouldHaveOpened)] == [would]
