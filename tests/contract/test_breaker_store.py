"""The contract of a breaker store: in memory and in Redis, the same calls get the same decisions."""

import asyncio

import pytest

from src.resilience.circuit_breaker.failover import FailoverBreakerStore
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import OPENINGS_COMPUTED, CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.resilience.circuit_breaker.store import (
    BreakerState,
    BreakerStatus,
    ManualState,
    Refusal,
    Ticket,
    Transition,
    WouldOpen,
)
from src.resilience.errors import CircuitOpenError
from src.resilience.events import OutcomeLost, ProbeStarted, Rejected, StateChanged
from src.services.errors import StorageUnavailableError
from src.storage.redis.link import PROBE_INTERVAL_SECONDS, RedisAddress, RedisLink, connect
from tests.contract.conftest import LIBRARY_BACKENDS
from tests.support.redis_server import commands_run

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.fixture(params=LIBRARY_BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def store(store_time):
    if store_time.link is None:
        return MemoryBreakerStore(store_time.clock)
    return RedisBreakerStore(store_time.redis, time_source=store_time.source)


class BreakerDriver:
    """Short methods for the store of one breaker."""

    def __init__(self, store, options, name="upstream"):
        self.store, self.options, self.name = store, options, name

    async def admit(self):
        return await self.store.admit(self.name, self.options)

    async def enter(self):
        ticket = await self.admit()
        assert isinstance(ticket, Ticket)
        return ticket

    async def refused(self):
        refusal = await self.admit()
        assert isinstance(refusal, Refusal)
        return refusal

    async def record(self, ticket, *, failed=False, slow=False):
        return await self.store.record(self.name, self.options, ticket, failed=failed, slow=slow)

    def release(self, ticket):
        self.store.release(self.name, ticket)

    async def renew(self, ticket):
        return await self.store.renew(self.name, self.options, ticket)

    async def call(self, *, failed=False, slow=False):
        return await self.record(await self.enter(), failed=failed, slow=slow)

    async def force(self, order, open_seconds=None):
        return await self.store.force(self.name, self.options, order, open_seconds)

    async def status(self):
        return await self.store.status(self.name, self.options)

    async def state(self):
        return (await self.status()).state


@pytest.fixture
def make_driver(store):
    def make_driver(name="upstream", **options):
        return BreakerDriver(store, CircuitBreakerOptions(**options), name)

    return make_driver


@pytest.fixture
def half_open(make_driver, store_time):
    """Open a breaker with threshold 1, and move time past its open time of 10 s."""

    async def half_open(**options):
        breaker = make_driver(failure_threshold=1, open_seconds=10, **options)
        await breaker.call(failed=True)
        await store_time.advance(10)
        return breaker

    return half_open


# ---------------------------------------------------------------- closed


async def test_an_unused_breaker_is_closed_and_empty(make_driver):
    assert await make_driver().status() == BreakerStatus(CLOSED, "upstream", 0, 0, 0.0, None, None, ())


async def test_consecutive_failures_open_it_and_the_transition_is_reported(make_driver, store_time):
    breaker = make_driver(failure_threshold=3)
    assert await breaker.call(failed=True) is None
    assert await breaker.call(failed=True) is None

    transition = await breaker.call(failed=True)

    assert transition == Transition(store_time.clock.now(), CLOSED, OPEN, "failures in a row: 3")
    assert await breaker.state() is OPEN


async def test_a_success_ends_consecutive_failures(make_driver):
    breaker = make_driver(failure_threshold=2)
    for failed in (True, False, True, False, True):
        await breaker.call(failed=failed)
    assert await breaker.state() is CLOSED


async def test_the_status_has_consecutive_failures_and_the_counts_of_the_window(make_driver):
    breaker = make_driver()
    for failed in (True, False, True, True):
        await breaker.call(failed=failed)
    status = await breaker.status()
    assert (status.failure_count, status.success_count, status.failure_rate) == (2, 1, 3 / 4)

    await breaker.call()

    status = await breaker.status()
    assert (status.failure_count, status.success_count, status.failure_rate) == (0, 2, 3 / 5)


async def test_consecutive_failures_count_beyond_the_window(make_driver):
    breaker = make_driver(failure_threshold=4, window_calls=2, minimum_calls=1)
    for _ in range(4):
        await breaker.call(failed=True)
    status = await breaker.status()
    assert (status.state, status.failure_count, status.failure_rate) == (OPEN, 4, 1)


async def test_time_does_not_end_consecutive_failures(make_driver, store_time):
    breaker = make_driver(failure_threshold=2, window_seconds=10)
    await breaker.call(failed=True)
    await store_time.advance(60)
    status = await breaker.status()
    assert (status.failure_count, status.failure_rate) == (1, 0)
    assert (await breaker.call(failed=True)).after is OPEN


async def test_the_failure_rate_opens_it_once_the_window_has_enough_calls(make_driver):
    breaker = make_driver(failure_threshold=None, failure_rate_threshold=0.5, minimum_calls=4)
    for failed in (True, True, False):
        assert await breaker.call(failed=failed) is None

    transition = await breaker.call(failed=False)

    assert transition.reason == "failed calls: 2 of 4"


async def test_a_rate_below_its_threshold_leaves_it_closed(make_driver):
    breaker = make_driver(failure_threshold=None, failure_rate_threshold=0.5, minimum_calls=2)
    for failed in (False, False, True, False):
        await breaker.call(failed=failed)
    assert await breaker.state() is CLOSED


async def test_successful_slow_calls_open_it(make_driver):
    breaker = make_driver(
        failure_threshold=None, slow_call_rate_threshold=0.5, slow_call_seconds=1, minimum_calls=4
    )
    for slow in (False, False, True):
        await breaker.call(slow=slow)

    transition = await breaker.call(slow=True)

    assert transition.reason == "slow calls: 2 of 4"
    assert (await breaker.status()).failure_count == 0


async def test_a_count_window_forgets_the_oldest_call(make_driver):
    breaker = make_driver(window_calls=3, minimum_calls=1)
    for failed in (True, True, False, False):
        await breaker.call(failed=failed, slow=failed)
    status = await breaker.status()
    assert (status.success_count, status.failure_rate) == (2, 1 / 3)


async def test_a_count_window_forgets_successes_as_well(make_driver):
    breaker = make_driver(window_calls=2, minimum_calls=1)
    for failed in (False, False, False, True):
        await breaker.call(failed=failed)
    status = await breaker.status()
    assert (status.success_count, status.failure_rate) == (1, 1 / 2)


async def test_a_time_window_forgets_the_oldest_bucket(make_driver, store_time):
    breaker = make_driver(window_seconds=10)
    await breaker.call(failed=True)
    await store_time.advance(5)
    await breaker.call()

    await store_time.advance(4.5)
    assert (await breaker.status()).failure_rate == 1 / 2

    await store_time.advance(0.5)
    status = await breaker.status()
    assert (status.success_count, status.failure_rate) == (1, 0)

    await store_time.advance(60)
    await breaker.call()
    assert (await breaker.status()).success_count == 1


async def test_breakers_of_other_names_are_not_affected(make_driver):
    await make_driver(failure_threshold=1).call(failed=True)
    assert await make_driver("other").state() is CLOSED


# ---------------------------------------------------------------- open


async def test_an_open_breaker_rejects_with_retry_after(make_driver, store_time):
    breaker = make_driver(failure_threshold=1, open_seconds=10)
    await breaker.call(failed=True)
    opened_at = store_time.clock.now()
    await store_time.advance(2.5)

    refusal = await breaker.refused()
    status = await breaker.status()

    assert refusal == Refusal("the circuit is open", 7.5)
    assert (status.state, status.opened_at, status.retry_after) == (OPEN, opened_at, 7.5)
    assert (status.failure_count, status.success_count, status.failure_rate) == (1, 0, 1.0)


async def test_after_the_open_time_the_status_is_half_open(half_open):
    breaker = await half_open()
    status = await breaker.status()
    assert (status.state, status.retry_after) == (HALF_OPEN, None)
    assert [t.after for t in status.transitions] == [OPEN]


async def test_retry_after_is_exact(make_driver, store_time):
    breaker = make_driver(failure_threshold=1, open_seconds=10)
    await breaker.call(failed=True)
    await store_time.advance(9.75)
    wait = (await breaker.refused()).retry_after
    assert wait == 0.25
    await store_time.advance(wait)
    assert (await breaker.enter()).probe is not None


async def test_each_failed_probe_extends_the_open_time_up_to_the_maximum(half_open, store_time):
    breaker = await half_open(open_seconds_factor=2, open_seconds_max=35)
    waits = []
    for _ in range(4):
        await breaker.call(failed=True)
        waits.append((await breaker.refused()).retry_after)
        await store_time.advance(waits[-1])
    assert waits == [20, 35, 35, 35]


async def test_closing_resets_the_open_time(half_open, store_time):
    breaker = await half_open(open_seconds_factor=2, open_seconds_max=80)
    await breaker.call(failed=True)
    await store_time.advance(20)
    await breaker.call()
    await breaker.call(failed=True)
    assert (await breaker.refused()).retry_after == 10


# ---------------------------------------------------------------- half-open


async def test_the_first_call_after_the_open_time_is_the_probe_and_reports_the_change(half_open, store_time):
    breaker = await half_open()
    probe = await breaker.enter()
    assert probe.probe is not None
    assert probe.transition == Transition(store_time.clock.now(), OPEN, HALF_OPEN, "the open time is over")


async def test_during_the_probe_retry_after_is_the_time_of_its_lease(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=4)
    await breaker.enter()
    await store_time.advance(1)
    assert await breaker.refused() == Refusal("the circuit is half-open and its probes are out", 3)
    status = await breaker.status()
    assert (status.state, status.retry_after) == (HALF_OPEN, 3)


async def test_a_successful_probe_closes_it_and_resets_the_counts(half_open):
    breaker = await half_open()
    transition = await breaker.call()
    status = await breaker.status()
    assert (transition.after, transition.reason) == (CLOSED, "probes succeeded: 1")
    assert (status.state, status.failure_count, status.success_count) == (CLOSED, 0, 0)
    assert (status.opened_at, status.retry_after) == (None, None)


async def test_a_failed_probe_opens_it_again_from_now(half_open, store_time):
    breaker = await half_open()
    transition = await breaker.call(failed=True)
    status = await breaker.status()
    assert (transition.before, transition.after) == (HALF_OPEN, OPEN)
    assert (status.opened_at, status.retry_after) == (store_time.clock.now(), 10)
    assert status.failure_count == 2


async def test_a_slow_probe_opens_it_again(half_open):
    breaker = await half_open(slow_call_rate_threshold=1, slow_call_seconds=1)
    assert (await breaker.call(slow=True)).after is OPEN


async def test_every_probe_must_succeed(half_open):
    breaker = await half_open(half_open_permits=3)
    first, second, third = [await breaker.enter() for _ in range(3)]
    await breaker.refused()
    assert await breaker.record(first) is None
    assert await breaker.record(second) is None
    assert (await breaker.status()).failure_count == 0
    await breaker.refused()
    assert (await breaker.record(third)).after is CLOSED


TWO_OF_THREE = [{"half_open_successes": 2}, {"half_open_success_rate": 0.5}]


async def test_with_fewer_permits_than_probes_have_ended_it_still_admits_probes_and_closes(
    half_open, make_driver
):
    """A new version of a program may lower the options while the breaker in Redis is half-open."""
    breaker = await half_open(half_open_permits=3)
    await breaker.record(await breaker.enter(), failed=False)
    lowered = make_driver(failure_threshold=1, half_open_permits=1)

    for _ in range(2):
        assert (await lowered.status()).retry_after is None
        await lowered.record(await lowered.enter(), failed=False)

    assert await lowered.state() is CLOSED


@pytest.mark.parametrize("enough", TWO_OF_THREE, ids=["number", "share"])
async def test_it_opens_again_as_soon_as_too_few_probes_can_succeed(half_open, enough):
    breaker = await half_open(half_open_permits=3, **enough)
    first, second, third = [await breaker.enter() for _ in range(3)]
    assert await breaker.record(first, failed=True) is None
    assert (await breaker.record(second, failed=True)).after is OPEN
    assert await breaker.record(third) is None


@pytest.mark.parametrize("enough", TWO_OF_THREE, ids=["number", "share"])
async def test_if_not_all_probes_must_succeed_one_failure_decides_nothing(half_open, enough):
    breaker = await half_open(half_open_permits=3, **enough)
    first, second, third = [await breaker.enter() for _ in range(3)]
    assert await breaker.record(first, failed=True) is None
    assert (await breaker.status()).state is HALF_OPEN
    assert await breaker.record(second) is None
    assert (await breaker.record(third)).after is CLOSED


async def test_a_dead_probers_permit_goes_to_another_and_its_late_result_is_dropped(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=4)
    dead = await breaker.enter()
    await store_time.advance(4)

    heir = await breaker.enter()

    assert heir.probe not in (None, dead.probe)
    assert heir.transition is None
    assert await breaker.record(dead, failed=True) is None
    assert await breaker.state() is HALF_OPEN
    assert (await breaker.record(heir)).after is CLOSED


async def test_an_overdue_probe_counts_until_its_permit_is_given_to_another(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=4)
    probe = await breaker.enter()
    await store_time.advance(5)
    assert (await breaker.record(probe)).after is CLOSED


async def test_a_dead_probers_permit_is_free_after_the_open_time(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=35)
    await breaker.enter()
    assert (await breaker.refused()).retry_after == 10
    await store_time.advance(10)
    assert (await breaker.enter()).probe is not None


async def test_a_probe_that_is_renewed_keeps_its_permit(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=35)
    probe = await breaker.enter()
    await store_time.advance(9)
    assert await breaker.renew(probe)
    await store_time.advance(9)
    assert (await breaker.refused()).retry_after == 1
    assert (await breaker.record(probe)).after is CLOSED


async def test_a_lost_permit_is_not_renewed(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=4)
    dead = await breaker.enter()
    await store_time.advance(4)
    heir = await breaker.enter()
    assert not await breaker.renew(dead)
    await breaker.record(heir)
    assert not await breaker.renew(heir)
    assert not await breaker.renew(await breaker.enter()), "only probes have a permit"


async def test_a_released_permit_is_free_at_once(half_open):
    breaker = await half_open()
    breaker.release(await breaker.enter())
    assert (await breaker.status()).retry_after is None
    assert (await breaker.enter()).probe is not None


async def test_a_permit_is_counted_once(half_open):
    breaker = await half_open(half_open_permits=2)
    probe = await breaker.enter()
    await breaker.record(probe)
    assert await breaker.record(probe) is None
    breaker.release(probe)
    await breaker.enter()
    await breaker.refused()


# ---------------------------------------------------------------- when the clock jumps

HOUR = 3600


@pytest.mark.parametrize("back", [5, HOUR])
async def test_after_a_clock_set_back_it_is_open_for_at_most_the_open_time(make_driver, store_time, back):
    """In the past, a clock set back by an hour kept the breaker open for an hour."""
    breaker = make_driver(failure_threshold=1, open_seconds=10)
    await breaker.call(failed=True)
    await store_time.advance(4)
    await store_time.shift(-back)
    assert (await breaker.status()).retry_after <= 10
    wait = (await breaker.refused()).retry_after
    for _ in range(4):
        await store_time.advance(wait / 4)
        last = await breaker.admit()
    assert isinstance(last, Ticket), "requests in the meantime do not delay it"


@pytest.mark.parametrize("back", [2, HOUR])
async def test_after_a_clock_set_back_a_dead_probe_blocks_for_at_most_a_lease(half_open, store_time, back):
    breaker = await half_open(probe_lease_seconds=4)
    await breaker.enter()
    await store_time.shift(-back)
    assert (await breaker.status()).retry_after <= 4
    wait = (await breaker.refused()).retry_after
    for _ in range(4):
        await store_time.advance(wait / 4)
        last = await breaker.admit()
    assert isinstance(last, Ticket)


async def test_a_probe_running_while_the_clock_is_set_back_counts(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=4)
    probe = await breaker.enter()
    await store_time.shift(-HOUR)
    await breaker.refused()
    assert (await breaker.record(probe)).after is CLOSED


async def test_after_a_clock_set_back_a_call_counts_for_at_most_the_window(make_driver, store_time):
    breaker = make_driver(
        failure_threshold=None, failure_rate_threshold=0.5, minimum_calls=4, window_seconds=10
    )
    for _ in range(3):
        await breaker.call(failed=True)
    await store_time.shift(-HOUR)
    await store_time.advance(10)
    assert (await breaker.status()).failure_rate == 0
    assert await breaker.call(failed=True) is None
    await store_time.advance(HOUR - 10)
    assert (await breaker.status()).failure_rate == 0, "also after the clock has reached its former time"


async def test_a_clock_set_forward_loses_no_probe(half_open, store_time):
    breaker = await half_open(probe_lease_seconds=4)
    probe = await breaker.enter()
    await store_time.shift(HOUR)
    assert (await breaker.record(probe)).after is CLOSED


# ---------------------------------------------------------------- generations


async def test_a_result_from_before_the_opening_is_dropped(half_open, make_driver, store_time):
    breaker = make_driver(failure_threshold=1, open_seconds=10)
    early, late = await breaker.enter(), await breaker.enter()
    await breaker.call(failed=True)
    assert await breaker.record(early) is None
    await store_time.advance(10)
    probe = await breaker.enter()
    assert await breaker.record(early) is None
    assert await breaker.state() is HALF_OPEN
    await breaker.record(probe)
    assert await breaker.record(late, failed=True) is None
    assert (await breaker.status()).failure_count == 0


async def test_a_probe_of_an_earlier_half_open_state_releases_no_later_permit(half_open, store_time):
    breaker = await half_open(half_open_permits=2)
    early = await breaker.enter()
    await breaker.call(failed=True)
    await store_time.advance(10)
    await breaker.enter()
    await breaker.enter()

    breaker.release(early)

    await breaker.refused()


async def test_a_call_from_before_a_reset_is_not_counted_after_it(make_driver):
    breaker = make_driver(failure_threshold=1)
    ticket = await breaker.enter()
    await breaker.force(ManualState.CLOSED)
    assert await breaker.record(ticket, failed=True) is None
    assert await breaker.state() is CLOSED


# ---------------------------------------------------------------- by hand


async def test_a_breaker_that_is_forced_open_stays_open(make_driver, store_time):
    breaker = make_driver(open_seconds=10)
    transition = await breaker.force(ManualState.FORCED_OPEN)
    opened_at = store_time.clock.now()
    await store_time.advance(1000)

    status = await breaker.status()

    assert (transition.before, transition.after, transition.reason) == (CLOSED, OPEN, "forced open")
    assert await breaker.refused() == Refusal("the circuit is forced open", None)
    assert (status.state, status.opened_at, status.retry_after) == (OPEN, opened_at, None)


async def test_a_breaker_that_is_forced_closed_counts_and_never_opens(make_driver):
    breaker = make_driver(failure_threshold=1)
    await breaker.force(ManualState.FORCED_CLOSED)
    for _ in range(5):
        assert not isinstance(await breaker.call(failed=True), Transition)
    status = await breaker.status()
    assert (status.state, status.failure_count) == (CLOSED, 5)


@pytest.mark.parametrize("order", [ManualState.FORCED_OPEN, ManualState.FORCED_CLOSED])
async def test_a_breaker_that_was_reset_works_automatically_again(make_driver, order):
    breaker = make_driver(failure_threshold=1)
    await breaker.force(order)
    assert (await breaker.force(ManualState.CLOSED)).reason == "closed by hand"
    assert (await breaker.call(failed=True)).after is OPEN


async def test_a_reset_clears_the_counts(make_driver):
    breaker = make_driver(failure_threshold=2)
    await breaker.call(failed=True)
    assert await breaker.force(ManualState.CLOSED) is None
    assert (await breaker.status()).failure_count == 0
    assert await breaker.call(failed=True) is None


@pytest.mark.parametrize("order", list(ManualState))
async def test_a_repeated_manual_state_is_no_change(make_driver, order):
    breaker = make_driver()
    await breaker.force(order)
    before = await breaker.status()
    assert await breaker.force(order) is None
    assert await breaker.status() == before


async def test_forcing_an_open_breaker_open_is_a_transition(make_driver):
    breaker = make_driver(failure_threshold=1)
    await breaker.call(failed=True)
    await breaker.force(ManualState.FORCED_OPEN)
    assert [(t.before, t.after) for t in (await breaker.status()).transitions] == [
        (CLOSED, OPEN), (OPEN, OPEN),
    ]  # fmt: skip


async def test_the_last_twenty_transitions_are_kept(make_driver, store_time):
    breaker = make_driver()
    start = store_time.clock.now()
    for _ in range(12):
        await store_time.advance(1)
        await breaker.force(ManualState.FORCED_OPEN)
        await breaker.force(ManualState.CLOSED)
    transitions = (await breaker.status()).transitions
    assert len(transitions) == 20
    assert (transitions[0].at, transitions[-1].at) == (start + 3, start + 12)


# ---------------------------------------------------------------- other rules


async def test_a_number_of_failures_in_a_time_window_opens_it(make_driver, store_time):
    breaker = make_driver(failures_in_window=3, window_seconds=60)
    for _ in range(2):
        await breaker.call(failed=True)
        await breaker.call()
    await store_time.advance(50)
    transition = await breaker.call(failed=True)
    assert transition.reason == "failures in the window: 3"
    assert await breaker.state() == OPEN


async def test_failures_that_have_left_the_window_do_not_open_it(make_driver, store_time):
    breaker = make_driver(failures_in_window=3, window_seconds=60)
    for _ in range(2):
        await breaker.call(failed=True)
    await store_time.advance(61)
    await breaker.call(failed=True)
    await breaker.call(failed=True)
    assert await breaker.state() == CLOSED
    await breaker.call(failed=True)
    assert await breaker.state() == OPEN


async def test_k_of_the_last_n_calls_open_it(make_driver):
    breaker = make_driver(failures_in_window=2, window_calls=3)
    for failed in (True, False, False, True, False):
        assert await breaker.call(failed=failed) is None
    assert (await breaker.call(failed=True)).reason == "failures in the window: 2"


async def test_a_function_of_the_openings_can_return_the_open_time(make_driver, store_time):
    breaker = make_driver(failure_threshold=1, open_seconds_of=lambda opening: 10.0 * opening**2)
    await breaker.call(failed=True)
    for seconds in (10, 40, 90):
        await store_time.advance(seconds - 0.001)
        assert (await breaker.refused()).retry_after == pytest.approx(0.001)
        await store_time.advance(0.001)
        await breaker.call(failed=True)
    await store_time.advance(160)
    await breaker.call()
    await breaker.call(failed=True)
    assert (await breaker.refused()).retry_after == 10


async def test_the_last_precomputed_open_time_applies_to_all_further_openings(make_driver, store_time):
    breaker = make_driver(failure_threshold=1, open_seconds_of=float)
    await breaker.call(failed=True)
    for opening in range(1, OPENINGS_COMPUTED + 3):
        assert (await breaker.refused()).retry_after == min(opening, OPENINGS_COMPUTED)
        await store_time.advance(min(opening, OPENINGS_COMPUTED))
        await breaker.call(failed=True)


async def test_a_breaker_forced_open_for_a_time_probes_afterwards(make_driver, store_time):
    breaker = make_driver(open_seconds=5)
    transition = await breaker.force(ManualState.OPEN, 3600)
    assert (transition.before, transition.after, transition.reason) == (CLOSED, OPEN, "opened by hand")
    await store_time.advance(3599)
    assert (await breaker.refused()).retry_after == 1
    await store_time.advance(1)
    assert await breaker.state() == HALF_OPEN
    await breaker.call(failed=True)
    assert (await breaker.refused()).retry_after == 5, "the forced open time does not become longer"


async def test_the_time_of_the_last_forced_opening_applies(make_driver, store_time):
    breaker = make_driver(failure_threshold=1, open_seconds=5)
    await breaker.call(failed=True)
    assert await breaker.force(ManualState.OPEN, 60) is None
    await store_time.advance(59)
    assert (await breaker.refused()).retry_after == 1


async def test_a_breaker_forced_open_without_a_time_uses_the_option(make_driver):
    breaker = make_driver(open_seconds=5)
    await breaker.force(ManualState.OPEN)
    assert (await breaker.refused()).retry_after == 5


async def test_a_breaker_that_is_forced_closed_reports_once_that_it_would_open(make_driver):
    breaker = make_driver(failure_threshold=2)
    await breaker.force(ManualState.FORCED_CLOSED)
    outcomes = [await breaker.call(failed=failed) for failed in (True, True, True, False, True, True, True)]
    would = WouldOpen("failures in a row: 2")
    assert outcomes == [None, would, None, None, None, would, None]
    assert await breaker.state() == CLOSED


# ---------------------------------------------------------------- through the breaker


class UpstreamError(Exception):
    """An error of the upstream."""


async def fail():
    raise UpstreamError


def workers(count, store, clock, listener, **options):
    """Return circuit breakers on one store, one for each worker."""
    options = CircuitBreakerOptions(**options)
    return [CircuitBreaker("upstream", store, options, clock, listener=listener) for _ in range(count)]


@pytest.mark.parametrize("permits", [1, 3])
async def test_of_twenty_callers_at_half_open_exactly_the_permitted_probes_run(
    store, store_time, listener, permits
):
    fleet = workers(
        4, store, store_time.clock, listener, failure_threshold=1, half_open_permits=permits, open_seconds=10
    )
    await fail_and_wait_for_half_open(fleet[0], store_time)
    answer = asyncio.Event()
    begun = 0

    async def upstream():
        nonlocal begun
        begun += 1
        await answer.wait()

    calls = [asyncio.ensure_future(fleet[i % 4].run(upstream)) for i in range(20)]
    async with asyncio.timeout(10):
        while sum(call.done() for call in calls) < 20 - permits:
            await asyncio.sleep(0)
    answer.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert begun == permits
    assert outcomes.count(None) == permits
    assert sum(isinstance(outcome, CircuitOpenError) for outcome in outcomes) == 20 - permits
    assert len(listener.of(ProbeStarted)) == permits
    assert len(listener.of(Rejected)) == 20 - permits
    assert [(e.before, e.after) for e in listener.of(StateChanged)] == [
        (CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED),
    ]  # fmt: skip


async def test_one_worker_of_the_fleet_reports_a_change(store, store_time, listener):
    fleet = workers(8, store, store_time.clock, listener, failure_threshold=8)
    await asyncio.gather(*(breaker.run(fail) for breaker in fleet), return_exceptions=True)
    assert len(listener.of(StateChanged)) == 1


async def fail_and_wait_for_half_open(breaker, store_time):
    """Fail once, and move time past the open time of 10 s."""
    with pytest.raises(UpstreamError):
        await breaker.run(fail)
    await store_time.advance(10)


async def test_a_cancelled_probe_gives_its_permit_back(store, store_time, listener):
    (breaker,) = workers(1, store, store_time.clock, listener, failure_threshold=1, open_seconds=10)
    await fail_and_wait_for_half_open(breaker, store_time)
    begun = asyncio.Event()

    async def hang():
        begun.set()
        await asyncio.Event().wait()

    probe = asyncio.ensure_future(breaker.run(hang))
    await begun.wait()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    status = await breaker.status()
    assert (status.state, status.retry_after, status.failure_count) == (HALF_OPEN, None, 1)


async def test_a_closed_probe_gives_its_permit_back(store, store_time, listener):
    (breaker,) = workers(1, store, store_time.clock, listener, failure_threshold=1, open_seconds=10)
    await fail_and_wait_for_half_open(breaker, store_time)
    waiting = asyncio.get_running_loop().create_future()
    probing = breaker.run(lambda: waiting)
    while (awaited := probing.send(None)) is not waiting:
        await send_none_until_done(awaited)

    probing.close()

    status = await breaker.status()
    assert (status.state, status.retry_after, status.failure_count) == (HALF_OPEN, None, 1)


async def send_none_until_done(awaited):
    """Run a coroutine by hand to its end, and await everything that it awaits."""
    awaited._asyncio_future_blocking = False
    while not awaited.done():
        await asyncio.sleep(0)


async def test_a_probe_cancelled_while_it_is_recorded_is_counted(store, store_time, listener):
    (breaker,) = workers(1, store, store_time.clock, listener, failure_threshold=1, open_seconds=10)
    await fail_and_wait_for_half_open(breaker, store_time)
    ended = asyncio.Event()

    async def call():
        ended.set()

    probe = asyncio.create_task(breaker.run(call))
    await ended.wait()
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    assert (await breaker.status()).state is CLOSED


@pytest.mark.parametrize("turns", range(4))
async def test_a_caller_cancelled_during_admission_leaves_no_permit_behind(
    store, store_time, listener, turns
):
    (breaker,) = workers(1, store, store_time.clock, listener, failure_threshold=1, open_seconds=10)
    await fail_and_wait_for_half_open(breaker, store_time)
    asking = asyncio.ensure_future(breaker.run(asyncio.Event().wait))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    # The next call is admitted at once, or when the server has answered the cancelled call.
    async with asyncio.timeout(10):
        while (await breaker.status()).retry_after is not None:
            await asyncio.sleep(0)


# ---------------------------------------------------------------- Redis alone


async def test_a_result_from_before_redis_lost_everything_is_dropped(make_driver, store_time):
    if store_time.link is None:
        pytest.skip("memory is lost with its tickets")
    breaker = make_driver(failure_threshold=1)
    ticket = await breaker.enter()
    await store_time.link.send("FLUSHALL")
    await store_time.advance(1)
    assert await breaker.record(ticket, failed=True) is None
    await breaker.enter()
    assert await breaker.record(ticket, failed=True) is None
    assert await breaker.state() is CLOSED


async def test_all_keys_of_a_breaker_share_one_slot(make_driver, store_time):
    if store_time.link is None:
        pytest.skip("memory has no slots")
    for options in ({}, {"window_seconds": 10}):
        breaker = make_driver(failure_threshold=1, **options)
        await breaker.call(failed=True)
        await breaker.force(ManualState.CLOSED)
        await breaker.call()
    keys = await store_time.link.send("KEYS", "*")
    assert all(key == b"test:now_us" or key.startswith(b"breaker:{upstream}") for key in keys)


@pytest.mark.parametrize("backend", ["redis"])
async def test_a_count_window_is_shortened_in_steps(store, store_time):
    """In the past, one run dropped all surplus calls, with a command for each call."""
    long, short = (
        BreakerDriver(store, CircuitBreakerOptions(window_calls=calls, minimum_calls=1))
        for calls in (1000, 5)
    )
    for number in range(1000):
        await long.call(failed=number < 990 and number % 2 == 0)
    busiest = 0
    for _ in range(12):
        before = await commands_run(store_time.link)
        await short.call()
        busiest = max(busiest, await commands_run(store_time.link) - before)
    status = await short.status()
    assert (status.success_count, status.failure_rate) == (5, 0)
    assert busiest <= 350


# ---------------------------------------------------------------- failing over


class Outage:
    """A store that a test can make unavailable."""

    def __init__(self, store):
        self._store = store
        self.is_away = False

    def __getattr__(self, name):
        async def method(*args, **kwargs):
            if self.is_away:
                raise StorageUnavailableError("away")
            reply = await getattr(self._store, name)(*args, **kwargs)
            return self._claim(reply)

        return method

    def release(self, name, ticket):
        if not self.is_away:
            self._store.release(name, ticket)

    def _claim(self, reply):
        return (
            Ticket(self, reply.generation, reply.probe, reply.transition)
            if isinstance(reply, Ticket)
            else reply
        )


@pytest.fixture
def fleet(store):
    return Outage(store)


@pytest.fixture
def failover_breaker(fleet, clock):
    """Return a breaker with threshold 1 over a shared store with outages and a local store."""
    store = FailoverBreakerStore(fleet, MemoryBreakerStore(clock))
    return BreakerDriver(store, CircuitBreakerOptions(failure_threshold=1))


async def test_while_the_shared_store_is_unavailable_the_local_store_decides(failover_breaker, fleet):
    fleet.is_away = True
    await failover_breaker.call(failed=True)
    await failover_breaker.refused()
    assert await failover_breaker.state() is OPEN


async def test_the_shared_store_decides_again_once_it_is_available(failover_breaker, fleet):
    fleet.is_away = True
    await failover_breaker.call(failed=True)
    fleet.is_away = False
    await failover_breaker.enter()
    assert await failover_breaker.state() is CLOSED


async def test_a_result_of_the_local_store_is_not_recorded_in_the_shared_store(failover_breaker, fleet):
    fleet.is_away = True
    ticket = await failover_breaker.enter()
    fleet.is_away = False
    await failover_breaker.enter()
    transition = await failover_breaker.record(ticket, failed=True)
    assert transition.after is OPEN  # the store of the worker
    assert await failover_breaker.state() is CLOSED


async def test_an_outcome_of_the_shared_store_is_dropped_while_it_is_unavailable(failover_breaker, fleet):
    ticket = await failover_breaker.enter()
    fleet.is_away = True
    await failover_breaker.enter()
    assert await failover_breaker.record(ticket, failed=True) is None
    failover_breaker.release(ticket)
    assert (await failover_breaker.status()).failure_count == 0
    fleet.is_away = False
    assert (await failover_breaker.status()).failure_count == 0


async def test_a_manual_state_is_set_in_the_deciding_store(failover_breaker, fleet):
    fleet.is_away = True
    await failover_breaker.force(ManualState.FORCED_OPEN)
    assert await failover_breaker.state() is OPEN
    fleet.is_away = False
    assert await failover_breaker.state() is CLOSED


async def test_an_outage_and_its_end_are_logged_once(failover_breaker, fleet, caplog):
    for away in (True, True, False, False):
        fleet.is_away = away
        await failover_breaker.call()
    assert [record.message for record in caplog.records] == ["breaker_local", "breaker_shared_again"]


async def test_calls_continue_while_redis_is_stopped(own_redis, clock):
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock)
    store = FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))
    breaker = BreakerDriver(store, CircuitBreakerOptions(failure_threshold=1))
    await breaker.force(ManualState.FORCED_OPEN)

    own_redis.kill()
    await breaker.call(failed=True)
    assert (await breaker.refused()).reason == "the circuit is open"

    own_redis.start()
    async with asyncio.timeout(10):
        while not link.is_up:
            await clock.advance(PROBE_INTERVAL_SECONDS)
    assert (await breaker.refused()).reason == "the circuit is forced open"
    await link.aclose()


async def test_an_outage_during_a_call_does_not_change_its_result(own_redis, clock, listener):
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock)
    options = CircuitBreakerOptions(failure_threshold=1)
    breaker = CircuitBreaker("bare", RedisBreakerStore(link), options, clock, listener=listener)

    async def answer():
        own_redis.kill()
        return "answer"

    async def fail_too():
        own_redis.kill()
        raise UpstreamError

    assert await breaker.run(answer) == "answer"
    own_redis.start()
    async with asyncio.timeout(10):
        while not link.is_up:
            await clock.advance(PROBE_INTERVAL_SECONDS)
    with pytest.raises(UpstreamError):
        await breaker.run(fail_too)
    errors = [event.error for event in listener.of(OutcomeLost)]
    assert [isinstance(error, StorageUnavailableError) for error in errors] == [True, True]
    await link.aclose()


async def test_while_redis_rejects_writes_the_local_store_decides(own_redis, clock, caplog):
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock)
    store = FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))
    breaker = BreakerDriver(store, CircuitBreakerOptions(failure_threshold=1))
    await breaker.call()

    with own_redis.connect() as outside:
        outside.execute_command("REPLICAOF", "127.0.0.1", "1")
        await breaker.call(failed=True)
        assert await breaker.state() is OPEN
        await breaker.refused()
        outside.execute_command("REPLICAOF", "NO", "ONE")

    await breaker.call()
    assert await breaker.state() is CLOSED
    logged = [record.message for record in caplog.records]
    assert logged == ["redis_refuses", "breaker_local", "breaker_shared_again"]
    await link.aclose()
