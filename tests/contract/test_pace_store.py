"""The contract of a pace store: in memory and in Redis, the same workers get the same slots."""

import asyncio
from itertools import pairwise

import pytest

from src.resilience.errors import CircuitOpenError, QueueFullError
from src.resilience.paced_queue.failover import FailoverPaceStore
from src.resilience.paced_queue.memory import MemoryPaceStore
from src.resilience.paced_queue.options import PacedQueueOptions
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.paced_queue.redis import RedisPaceStore
from src.resilience.paced_queue.store import Offer, PaceStatus
from src.services.errors import StorageUnavailableError
from src.storage.redis.link import PROBE_INTERVAL_SECONDS, RedisAddress, RedisLink, connect
from tests.contract.conftest import LIBRARY_BACKENDS
from tests.support.clock import settle

A, B, C = "a" * 32, "b" * 32, "c" * 32
"""Three workers."""

SECOND = 1_000_000
GRACE, POLL = 0.1, 0.02
"""Those of an interval of one second."""


@pytest.fixture(params=LIBRARY_BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def stores(store_time):
    """Return a function that creates the stores of several processes that share a queue."""

    def stores(count=1, **options):
        options = PacedQueueOptions(**options)
        if store_time.link is None:
            return [MemoryPaceStore(options, store_time.clock)] * count
        return [
            RedisPaceStore("upstream", options, store_time.redis, time_source=store_time.source)
            for _ in range(count)
        ]

    return stores


@pytest.fixture
def store(stores):
    (store,) = stores()
    return store


def waiting_offer(size=1, *, newcomers=0, age=0.0, lead=None):
    """Return the offer of a queue whose first caller has waited `age` seconds."""
    lead = age if lead is None else lead
    return Offer(size, newcomers, round(age * SECOND), round(lead * SECOND))


def arriving_offer(newcomers=1):
    return Offer(0, newcomers)


GONE = Offer(0)


async def take_slot(store, worker=A, offer=None):
    """Make an offer, and return the slot, which must have been assigned."""
    verdict = await store.ask(worker, offer or arriving_offer())
    assert verdict.slot is not None
    return verdict.slot


async def wait_without_slot(store, worker=A, offer=None):
    """Make an offer that must get no slot, and return the seconds until the next offer."""
    verdict = await store.ask(worker, offer or arriving_offer())
    assert verdict.slot is None
    return verdict.wait_us / SECOND


# ---------------------------------------------------------------- the pace


async def test_the_first_slot_is_due_at_once_and_the_next_an_interval_later(store, store_time):
    first = await store.ask(A, arriving_offer(2))
    assert (first.admitted, first.slot is None, first.policy, first.wait_us) == (2, False, "fifo", SECOND)
    assert await wait_without_slot(store, A, waiting_offer()) == 1

    await store_time.advance(0.999999)
    assert await wait_without_slot(store, A, waiting_offer(age=0.999999)) == 0.000001
    await store_time.advance(0.000001)

    second = await store.ask(A, waiting_offer(age=1))
    assert second.slot.number == first.slot.number + 1


async def test_an_idle_queue_accumulates_no_slots(store, store_time):
    await take_slot(store)
    await store_time.advance(60)
    await take_slot(store)
    assert await wait_without_slot(store) == 1


async def test_without_waiting_callers_no_slot_is_assigned(store):
    verdict = await store.ask(A, GONE)
    assert (verdict.admitted, verdict.slot) == (0, None)
    assert await store.status() == PaceStatus("fifo", 0, 100, None, 0)
    await take_slot(store)


async def test_twenty_concurrent_offers_get_one_slot_and_the_free_places(stores):
    fleet = stores(20, capacity=30)
    verdicts = await asyncio.gather(
        *(store.ask(f"{number:032x}", arriving_offer(2)) for number, store in enumerate(fleet))
    )
    assert sum(verdict.slot is not None for verdict in verdicts) == 1
    assert sum(verdict.admitted for verdict in verdicts) == 31  # the caller with the slot has left the queue
    assert (await fleet[0].status()).size == 30


# ---------------------------------------------------------------- order of callers


async def test_the_slot_goes_to_the_worker_with_the_earliest_caller(stores, store_time):
    ours, theirs = stores(2)
    await take_slot(ours)
    await wait_without_slot(ours, A, waiting_offer(age=0.1))
    await wait_without_slot(theirs, B, waiting_offer(age=0.2))
    await store_time.advance(1)

    assert await wait_without_slot(ours, A, waiting_offer(age=1.1)) == POLL
    await take_slot(theirs, B, waiting_offer(age=1.2))
    assert await wait_without_slot(ours, A, waiting_offer(age=1.1)) == 1


async def test_by_priority_the_slot_goes_to_the_worker_with_the_greater_lead(stores, store_time):
    ours, theirs = stores(2, policy="priority")
    await take_slot(ours)
    await wait_without_slot(ours, A, waiting_offer(age=0.5, lead=-9.5))
    await wait_without_slot(theirs, B, waiting_offer(age=0.1, lead=0.1))
    await store_time.advance(1)
    assert await wait_without_slot(ours, A, waiting_offer(age=1.5, lead=-8.5)) == POLL
    await take_slot(theirs, B, waiting_offer(age=1.1, lead=1.1))


async def test_of_equal_offers_the_worker_with_the_lower_name_is_next(stores, store_time):
    ours, theirs = stores(2)
    await take_slot(ours)
    await wait_without_slot(theirs, B, waiting_offer())
    await wait_without_slot(ours, A, waiting_offer())
    await store_time.advance(1)
    assert await wait_without_slot(theirs, B, waiting_offer(age=1)) == POLL
    await take_slot(ours, A, waiting_offer(age=1))


async def test_a_withdrawn_offer_does_not_delay_others(stores, store_time):
    ours, theirs = stores(2)
    await take_slot(ours)
    await wait_without_slot(ours, A, waiting_offer(age=0.5))
    await wait_without_slot(theirs, B, waiting_offer())
    await ours.ask(A, GONE)
    await store_time.advance(1)
    await take_slot(theirs, B, waiting_offer(age=1))


async def test_a_new_policy_applies_to_the_next_offer_of_every_worker(stores, store_time):
    ours, theirs = stores(2)
    await take_slot(ours)
    old, urgent = waiting_offer(age=0.5, lead=-9.5), waiting_offer(age=0.1, lead=0.1)
    await wait_without_slot(ours, A, old)
    await wait_without_slot(theirs, B, urgent)
    await ours.set_policy("priority")
    await store_time.advance(1)

    verdict = await theirs.ask(B, waiting_offer(age=1.1, lead=1.1))

    assert verdict.slot is not None
    assert verdict.policy == "priority"
    assert (await theirs.status()).policy == "priority"


async def test_a_set_policy_overrides_the_default_of_a_later_worker(stores):
    first, later = stores(2)
    await first.set_policy("priority")
    assert (await later.status()).policy == "priority"
    assert (await later.ask(B, arriving_offer())).policy == "priority"


# ---------------------------------------------------------------- killed workers


async def test_a_dead_workers_offer_expires_after_the_grace_period(stores, store_time):
    ours, theirs = stores(2)
    await take_slot(theirs, B)
    await wait_without_slot(theirs, B, waiting_offer(5, age=0.5))  # and is killed
    await wait_without_slot(ours, A, waiting_offer())
    assert (await ours.status()).size == 6

    waited = 1.0
    await store_time.advance(1)
    while (verdict := await ours.ask(A, waiting_offer(age=waited))).slot is None:
        assert verdict.wait_us / SECOND == POLL
        waited += POLL
        await store_time.advance(POLL)

    assert waited == pytest.approx(1 + GRACE)
    assert (await ours.status()).size == 0


async def test_a_live_worker_keeps_its_place_while_others_are_served_first(stores, store_time):
    ours, theirs = stores(2)
    await take_slot(theirs, B, arriving_offer())
    for second in range(5):
        await wait_without_slot(ours, A, waiting_offer(age=second))
        await wait_without_slot(theirs, B, waiting_offer(age=9))
        await store_time.advance(1)
        assert await wait_without_slot(ours, A, waiting_offer(age=second + 1)) == POLL
        await take_slot(theirs, B, waiting_offer(age=10))
    assert (await ours.status()).size == 1


@pytest.mark.parametrize(
    ("interval", "grace", "poll"), [(0.1, 0.05, 0.005), (1, 0.1, 0.02), (5, 0.5, 0.025), (60, 1, 0.025)]
)
async def test_grace_and_poll_are_bounded_fractions_of_the_interval(interval, grace, poll):
    options = PacedQueueOptions(interval_seconds=interval)
    assert (options.grace_us, options.poll_us) == (grace * SECOND, poll * SECOND)


# ---------------------------------------------------------------- capacity


async def test_the_capacity_applies_to_all_workers_together(stores, store_time):
    ours, theirs = stores(2, capacity=5)
    await take_slot(ours, A, arriving_offer(4))
    verdict = await theirs.ask(B, arriving_offer(4))
    assert (verdict.admitted, verdict.slot, verdict.retry_after) == (2, None, 1)
    assert (await ours.ask(A, waiting_offer(3, newcomers=1))).admitted == 0
    assert (await ours.status()).size == 5

    await ours.ask(A, waiting_offer(2))  # one has left
    verdict = await theirs.ask(B, waiting_offer(2, newcomers=4))

    assert verdict.admitted == 1
    await store_time.advance(1)
    assert (
        await ours.ask(A, waiting_offer(2, newcomers=2, age=1))
    ).admitted == 1  # another caller gets the slot


async def test_a_full_queue_admits_a_caller_that_is_next_and_due(stores, store_time):
    ours, theirs = stores(2, capacity=1, policy="priority")
    await take_slot(ours, A, arriving_offer(2))
    await store_time.advance(1)
    verdict = await theirs.ask(B, Offer(0, 2, 0, 2 * SECOND))
    assert (verdict.admitted, verdict.slot is None) == (1, False)
    assert (await ours.status()).size == 1


async def test_the_status_includes_the_callers_of_all_workers(stores, store_time):
    ours, theirs = stores(2, capacity=7)
    await take_slot(ours)
    await wait_without_slot(ours, A, waiting_offer(2, age=0.25))
    await wait_without_slot(theirs, B, waiting_offer(3, age=0.5))
    await store_time.advance(0.25)
    assert await ours.status() == await theirs.status() == PaceStatus("fifo", 5, 7, 0.75, 0.75)


async def test_the_status_contains_the_time_until_the_next_slot(stores, store_time):
    ours, theirs = stores(2)

    async def due():
        seconds = (await ours.status()).next_slot_seconds
        assert (await theirs.status()).next_slot_seconds == seconds
        return seconds

    assert await due() == 0
    turn = await take_slot(ours)
    assert await due() == 1
    await store_time.advance(0.25)
    assert await due() == 0.75
    await ours.postpone(30)
    assert await due() == 30
    await ours.give_back(turn)
    await store_time.advance(29.5)
    assert await due() == 0.5
    await store_time.advance(9)
    assert await due() == 0


# ---------------------------------------------------------------- slots that are given back


async def test_a_slot_that_is_given_back_is_due_at_once(stores, store_time):
    ours, theirs = stores(2)
    turn = await take_slot(ours)
    await store_time.advance(0.25)
    await ours.give_back(turn)
    await take_slot(theirs, B)
    assert await wait_without_slot(ours) == 1


async def test_workers_that_wait_for_a_later_slot_do_not_delay_others_until_their_next_offer(
    stores, store_time
):
    ours, theirs = stores(2)
    turn = await take_slot(ours)
    await wait_without_slot(theirs, B, waiting_offer(age=5))
    await store_time.advance(0.25)
    await ours.give_back(turn)

    again = await take_slot(ours, A, waiting_offer())
    await ours.give_back(again)
    await take_slot(theirs, B, waiting_offer(age=5.25))


async def test_a_slot_can_be_given_back_once(store, store_time):
    turn = await take_slot(store)
    await store.give_back(turn)
    await store.give_back(turn)
    again = await take_slot(store)
    await store.give_back(turn)
    assert await wait_without_slot(store) == 1
    assert again.number == turn.number + 1


async def test_a_slot_given_back_after_a_later_one_is_lost(store, store_time):
    early = await take_slot(store)
    await store_time.advance(1)
    await take_slot(store)
    await store.give_back(early)
    assert await wait_without_slot(store) == 1


# ---------------------------------------------------------------- postponing


async def test_no_slot_is_assigned_while_postponed(stores, store_time):
    ours, theirs = stores(2)
    await ours.postpone(5)
    await theirs.postpone(3)
    assert await wait_without_slot(theirs, B, waiting_offer()) == 5
    await store_time.advance(4.999999)
    assert await wait_without_slot(theirs, B, waiting_offer(age=4.999999)) == 0.000001
    await store_time.advance(0.000001)
    await take_slot(theirs, B, waiting_offer(age=5))


async def test_postponing_and_giving_back_never_make_a_slot_due_sooner(store):
    turn = await take_slot(store)
    await store.postpone(0.5)
    assert await wait_without_slot(store, A, waiting_offer()) == 1
    await store.give_back(turn)
    assert await wait_without_slot(store, A, waiting_offer()) == 0.5


async def test_offers_do_not_expire_while_postponed(store, store_time):
    await store.postpone(30)
    await wait_without_slot(store, A, waiting_offer(3))
    await store_time.advance(29)
    assert (await store.status()).size == 3


# ---------------------------------------------------------------- when the clock jumps

HOUR = 3600


async def test_after_a_clock_set_back_a_caller_waits_at_most_an_interval(store, store_time):
    await take_slot(store)
    await store_time.shift(-HOUR)
    assert (await store.status()).next_slot_seconds == 1
    for left in (1, 0.75, 0.5, 0.25):  # offers in the meantime do not delay the slot
        assert await wait_without_slot(store, A, waiting_offer(age=1 - left)) == left
        await store_time.advance(0.25)
    await take_slot(store, A, waiting_offer(age=1))


@pytest.mark.parametrize("back", [2, HOUR])
async def test_after_a_clock_set_back_slots_are_postponed_as_long_as_before(store, store_time, back):
    await store.postpone(5)
    await store_time.shift(-back)
    assert (await store.status()).next_slot_seconds <= 5
    wait = await wait_without_slot(store, A, waiting_offer())
    assert wait <= 5
    for part in range(4):  # offers in the meantime do not delay the slot
        await store_time.advance(wait / 4)
        verdict = await store.ask(A, waiting_offer(age=(part + 1) * wait / 4))
    assert verdict.slot is not None


async def test_after_a_clock_set_back_a_dead_workers_offer_expires_as_before(stores, store_time):
    """In the past, the callers of the dead worker kept their places for an hour."""
    ours, theirs = stores(2, capacity=3)
    await take_slot(ours)
    await wait_without_slot(theirs, B, waiting_offer(3))
    await store_time.shift(-HOUR)
    await store_time.advance(1 + GRACE)
    assert (await ours.status()).size == 0
    assert (await ours.ask(A, arriving_offer(3))).admitted == 3


async def test_after_a_clock_set_back_a_live_worker_keeps_its_place(stores, store_time):
    ours, theirs = stores(2, capacity=3)
    await take_slot(ours)
    await wait_without_slot(theirs, B, waiting_offer(3))
    await store_time.shift(-HOUR)
    await wait_without_slot(theirs, B, waiting_offer(3))
    assert (await ours.status()).size == 3
    assert (await ours.ask(A, arriving_offer(1))).admitted == 0


async def test_after_a_clock_set_forward_a_slot_is_due_at_once_and_the_pace_applies(store, store_time):
    await take_slot(store)
    await store_time.shift(HOUR)
    if store_time.link is None:
        await store_time.advance(1)  # the store in memory uses a clock that does not jump
    await take_slot(store, A, waiting_offer())
    assert await wait_without_slot(store, A, waiting_offer()) == 1


# ---------------------------------------------------------------- Redis alone


@pytest.fixture
def needs_redis(store_time):
    if store_time.link is None:
        pytest.skip("memory is lost with its workers")


@pytest.mark.usefixtures("needs_redis")
class TestRedis:
    async def test_after_a_flush_no_slot_is_assigned_within_an_interval(self, stores, store_time):
        ours, theirs = stores(2)
        turn = await take_slot(ours)
        await store_time.link.send("FLUSHALL")
        await store_time.publish()

        assert await wait_without_slot(ours, A, waiting_offer()) == 1
        assert await wait_without_slot(theirs, B, waiting_offer()) == 1
        await store_time.advance(1)
        assert (await take_slot(ours, A, waiting_offer(age=1))).number == turn.number + 1

    async def test_after_a_loss_of_data_the_offer_of_a_worker_without_a_slot_postpones_the_next_slot(
        self, stores, store_time
    ):
        ours, theirs = stores(2)
        await take_slot(ours)
        await wait_without_slot(theirs, B, waiting_offer())
        await store_time.advance(0.9)
        await store_time.link.send("FLUSHALL")
        await store_time.publish()
        assert await wait_without_slot(theirs, B, waiting_offer(age=0.9)) == 1

    async def test_after_a_restart_with_older_data_no_slot_is_assigned_within_an_interval(
        self, stores, store_time
    ):
        (ours,) = stores()
        await take_slot(ours)
        (key,) = await store_time.link.send("KEYS", "pace:*")
        past = await store_time.link.send("DUMP", key)
        await store_time.advance(1)
        turn = await take_slot(ours)
        await store_time.link.send("RESTORE", key, 0, past, "REPLACE")

        assert await wait_without_slot(ours, A, waiting_offer()) == 1
        await ours.give_back(turn)
        assert await wait_without_slot(ours, A, waiting_offer()) == 1

    async def test_after_a_loss_of_data_the_policy_comes_from_a_worker(self, stores, store_time):
        ours, theirs = stores(2)
        await ours.set_policy("priority")
        await theirs.ask(B, arriving_offer())  # the worker gets the new state
        await store_time.link.send("FLUSHALL")
        await store_time.publish()
        assert (await theirs.status()).policy == "priority"
        assert (await theirs.ask(B, waiting_offer())).policy == "priority"
        assert (await ours.status()).policy == "priority"

    async def test_expired_offers_are_removed(self, stores, store_time):
        ours, theirs = stores(2)
        await take_slot(ours)
        await wait_without_slot(theirs, B, waiting_offer())
        await store_time.advance(10)
        await take_slot(ours)
        assert await store_time.link.send("KEYS", "pace:*:offers") == []

    async def test_all_keys_of_a_queue_share_one_hash_slot(self, store, store_time):
        await take_slot(store, A, arriving_offer(3))
        await store.postpone(1)
        await store.set_policy("priority")
        keys = set(await store_time.link.send("KEYS", "*")) - {b"test:now_us"}
        assert keys == {b"pace:{upstream}", b"pace:{upstream}:offers"}

    async def test_an_offer_is_one_round_trip(self, store, store_time):
        await take_slot(store)
        before = store_time.link.round_trips
        await wait_without_slot(store, A, waiting_offer(3, newcomers=2))
        assert store_time.link.round_trips == before + 1


# ---------------------------------------------------------------- through the queue


class ConcurrencyCountingStore:
    """A store that counts its concurrent calls."""

    def __init__(self, store):
        self._store = store
        self.questions = 0

    def __getattr__(self, name):
        async def method(*args):
            self.questions += 1
            try:
                return await getattr(self._store, name)(*args)
            finally:
                self.questions -= 1

        return method


class Fleet:
    """The queues of several workers, and the start times of their callers."""

    def __init__(self, stores, options, store_time, listener):
        self.time = store_time
        self.stores = [ConcurrencyCountingStore(store) for store in stores]
        self.queues = [
            PacedQueue(options, store, store_time.clock, listener=listener) for store in self.stores
        ]
        for name, queue in zip("abcdef", self.queues, strict=False):
            queue._worker_name = name * 32
        self.starts = []
        self.callers = {}

    async def arrive(self, worker, name, *, priority=0, rejecting=False):
        async def call():
            if rejecting:
                raise CircuitOpenError("breaker", "the circuit is open", 30)
            self.starts.append((name, self.time.clock.monotonic()))

        running = self.queues[worker].run(call, priority=priority)
        self.callers[name] = asyncio.create_task(running)
        await self.settle_all()

    async def settle_all(self):
        """Run the event loop until no worker has an offer to make now."""
        async with asyncio.timeout(10):
            await settle()
            while any(store.questions for store in self.stores):
                await settle()

    async def pass_time(self, seconds):
        """Move the time of the store and of the workers."""
        clock, end = self.time.clock, self.time.clock.monotonic() + seconds
        while clock._timers and clock._timers[0][0] <= end:
            await self.time.advance(max(0, clock._timers[0][0] - clock.monotonic()))
            await clock.advance(0)
            await self.settle_all()
        await self.time.advance(end - clock.monotonic())

    async def end(self):
        for queue in self.queues:
            await queue.aclose()
        await asyncio.gather(*self.callers.values(), return_exceptions=True)


@pytest.fixture
async def fleet(stores, store_time, listener):
    fleets = []

    def fleet(workers=2, **options):
        fleets.append(Fleet(stores(workers, **options), PacedQueueOptions(**options), store_time, listener))
        return fleets[-1]

    yield fleet
    for made in fleets:
        await made.end()


async def test_two_workers_serve_callers_in_order_of_arrival_and_at_the_pace(fleet):
    fleet = fleet()
    for number in range(8):
        await fleet.arrive((number // 2) % 2, number)
        await fleet.pass_time(0.01)
    await fleet.pass_time(8)
    assert [name for name, _ in fleet.starts] == list(range(8))
    assert [start for _, start in fleet.starts] == pytest.approx(list(range(8)), abs=1e-6)


async def test_two_workers_serve_callers_by_priority(fleet):
    fleet = fleet(policy="priority")
    await fleet.arrive(0, "first")
    for worker, name, priority in ((0, "d", 3), (1, "b", 1), (0, "a", 0), (1, "c", 2)):
        await fleet.arrive(worker, name, priority=priority)
    await fleet.pass_time(5)
    assert [name for name, _ in fleet.starts] == ["first", "a", "b", "c", "d"]


async def test_a_new_policy_reaches_every_worker_and_keeps_all_places(fleet):
    fleet = fleet()
    await fleet.arrive(0, "first")
    for worker, name, priority in ((0, "a", 3), (1, "b", 2), (0, "c", 1), (1, "d", 0)):
        await fleet.arrive(worker, name, priority=priority)
        await fleet.pass_time(0.01)
    await fleet.pass_time(1)
    await fleet.queues[1].set_policy("priority")
    await fleet.pass_time(1)
    await fleet.queues[0].set_policy("fifo")
    await fleet.pass_time(2)
    assert [name for name, _ in fleet.starts] == ["first", "a", "d", "b", "c"]


async def test_a_killed_worker_with_callers_does_not_block_others(fleet):
    fleet = fleet()
    await fleet.arrive(0, "first")
    for number in range(3):
        await fleet.arrive(1, ("dead", number))
        await fleet.arrive(0, ("alive", number))
    await fleet.pass_time(0.5)
    fleet.queues[1]._worker.cancel()

    await fleet.pass_time(4)

    assert [name for name, _ in fleet.starts] == ["first", *(("alive", number) for number in range(3))]
    times = [start for _, start in fleet.starts]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(1 <= round(gap, 6) <= 1.2 for gap in gaps)
    for caller in fleet.callers.values():
        caller.cancel()


async def test_the_capacity_limits_the_callers_of_all_workers(fleet):
    fleet = fleet(capacity=4)
    for number in range(8):
        await fleet.arrive(number % 2, number)
    wait_without_slot = [
        name for name, caller in fleet.callers.items() if caller.done() and caller.exception()
    ]
    assert wait_without_slot == [5, 6, 7]
    assert all(isinstance(fleet.callers[name].exception(), QueueFullError) for name in wait_without_slot)
    fleet.callers[2].cancel()
    await fleet.settle_all()
    await fleet.arrive(1, "late")
    assert not fleet.callers["late"].done()


async def test_behind_an_open_breaker_one_slot_rejects_all_callers_of_a_worker(fleet):
    fleet = fleet()
    await fleet.arrive(0, "first")
    for number in range(12):
        await fleet.arrive(number % 2, number, rejecting=True)
    await fleet.arrive(1, "last")
    await fleet.pass_time(2)
    assert all(isinstance(fleet.callers[number].exception(), CircuitOpenError) for number in range(12))
    assert [name for name, _ in fleet.starts] == ["first", "last"]


# ---------------------------------------------------------------- failing over


class Outage:
    """A store that can be made unavailable.

    Attributes:
        is_away: Whether every method fails.
        denied: Names of methods that fail.
    """

    def __init__(self, store):
        self._store = store
        self.is_unavailable = False
        self.denied = set()

    def __getattr__(self, name):
        async def method(*args):
            if self.is_unavailable or name in self.denied:
                raise StorageUnavailableError("away")
            return await getattr(self._store, name)(*args)

        return method


class TestFailoverStore:
    @pytest.fixture
    def fleets(self, stores):
        (store,) = stores(capacity=10)
        return Outage(store)

    @pytest.fixture
    def store(self, fleets, store_time):
        """Return a failover store of one of four workers, with an interval of one second."""
        return FailoverPaceStore(fleets, PacedQueueOptions(capacity=10), store_time.clock, workers=4)

    async def test_while_the_shared_store_is_unavailable_a_worker_keeps_its_share(
        self, store, fleets, store_time
    ):
        await take_slot(store)
        fleets.is_unavailable = True
        assert await wait_without_slot(store, A, waiting_offer()) == 4
        await store_time.advance(4)
        await take_slot(store, A, waiting_offer(age=4))
        assert await wait_without_slot(store) == 4
        assert (await store.ask(A, waiting_offer(newcomers=9))).admitted == 1
        assert await store.status() == PaceStatus("fifo", 2, 2, 0, 4)

    async def test_after_an_outage_no_slot_is_assigned_before_every_worker_has_switched_back(
        self, store, fleets, store_time
    ):
        await take_slot(store)
        fleets.is_unavailable = True
        await wait_without_slot(store, A, waiting_offer())
        await store_time.advance(4)
        await take_slot(store, A, waiting_offer(age=4))
        fleets.is_unavailable = False
        assert await wait_without_slot(store, A, waiting_offer()) == 1 + PROBE_INTERVAL_SECONDS
        await store_time.advance(1 + PROBE_INTERVAL_SECONDS)
        await take_slot(store, A, waiting_offer(age=1))

    async def test_during_an_outage_the_last_known_policy_applies(self, store, fleets, store_time):
        await fleets.set_policy("priority")
        await take_slot(store)
        fleets.is_unavailable = True
        assert (await store.ask(A, waiting_offer())).policy == "priority"
        assert (await store.status()).policy == "priority"

    async def test_during_an_outage_a_policy_set_before_applies(self, store, fleets):
        await store.set_policy("priority")
        fleets.is_unavailable = True
        assert (await store.status()).policy == "priority"

    async def test_during_an_outage_setting_a_policy_fails(self, store, fleets):
        fleets.is_unavailable = True
        with pytest.raises(StorageUnavailableError):
            await store.set_policy("priority")
        assert (await store.status()).policy == "fifo"

    async def test_a_delay_during_an_outage_applies_locally_and_later_in_the_shared_store(
        self, store, fleets, store_time
    ):
        fleets.is_unavailable = True
        await store.postpone(10)
        assert await wait_without_slot(store, A, waiting_offer()) == 10
        await store_time.advance(2)
        fleets.is_unavailable = False
        assert await wait_without_slot(store, A, waiting_offer(age=2)) == 8

    async def test_a_delay_in_the_shared_store_applies_to_the_local_store_too(self, store, fleets):
        await store.postpone(10)
        fleets.is_unavailable = True
        assert await wait_without_slot(store, A, waiting_offer()) == 10

    async def test_a_slot_is_given_back_only_to_the_store_that_assigned_it(self, store, fleets, store_time):
        turn = await take_slot(store)
        fleets.is_unavailable = True
        await wait_without_slot(store, A, waiting_offer())
        await store_time.advance(4)
        own = await take_slot(store, A, waiting_offer(age=4))
        await store.give_back(turn)
        assert await wait_without_slot(store, A, waiting_offer()) == 4
        await store.give_back(own)
        await take_slot(store, A, waiting_offer())

    @pytest.mark.parametrize("denied", ["ask", "postpone"])
    async def test_a_store_with_one_failing_method_does_not_delay_slots(
        self, store, fleets, store_time, denied
    ):
        await take_slot(store)
        await store_time.advance(1)
        fleets.denied = {"ask", denied}
        assert await wait_without_slot(store, A, waiting_offer()) == 4
        fleets.denied = {denied}
        for left in (3, 2, 1):
            await store_time.advance(1)
            assert await wait_without_slot(store, A, waiting_offer()) == left
        await store_time.advance(1)
        await take_slot(store, A, waiting_offer())

    async def test_intermittent_outages_do_not_stop_the_slots(self, store, fleets, store_time):
        slots = []
        for _ in range(200):
            fleets.is_unavailable = not fleets.is_unavailable  # so that every successful call ends an outage
            verdict = await store.ask(A, waiting_offer())
            if verdict.slot is not None:
                slots.append(store_time.clock.monotonic())
            await store_time.advance(verdict.wait_us / SECOND)
        assert len(slots) >= 0.1 * store_time.clock.monotonic()
        gaps = [later - earlier for earlier, later in pairwise(slots)]
        assert min(gaps) >= 1

    async def test_a_store_whose_status_fails_still_assigns_slots(self, store, fleets, store_time):
        await take_slot(store)
        fleets.denied = {"status"}
        for _ in range(3):
            assert (await store.status()).capacity == 2
            await store_time.advance(1)
            await take_slot(store, A, waiting_offer(age=1))

    async def test_a_delay_is_sent_to_the_shared_store_before_the_next_offer(self, store, fleets, store_time):
        await take_slot(store)
        fleets.denied = {"postpone"}
        await store.postpone(10)
        fleets.denied = set()
        await store_time.advance(2)
        assert await wait_without_slot(store, A, waiting_offer()) == 8
        assert (await fleets.status()).next_slot_seconds == 8

    async def test_the_status_includes_callers_in_the_local_store(self, store, fleets, store_time):
        await take_slot(store)
        fleets.denied = {"ask"}
        await wait_without_slot(store, A, waiting_offer(2))
        status = await store.status()
        assert (status.size, status.capacity) == (2, 2)
        fleets.denied = set()
        await wait_without_slot(store, A, waiting_offer(2))
        status = await store.status()
        assert (status.size, status.capacity) == (2, 10)

    async def test_an_outage_and_its_end_are_logged_once(self, store, fleets, caplog):
        for away in (True, True, False, False):
            fleets.is_unavailable = away
            await store.status()
            await store.ask(A, waiting_offer())
        assert [record.message for record in caplog.records] == ["pace_local", "pace_shared_again"]


async def test_the_queue_continues_while_redis_is_stopped(own_redis, clock):
    options = PacedQueueOptions(interval_seconds=10)
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock)
    store = FailoverPaceStore(RedisPaceStore("upstream", options, link), options, clock, workers=2)
    await store.set_policy("priority")
    await take_slot(store)

    own_redis.kill()
    assert await wait_without_slot(store, A, waiting_offer()) == 20
    await clock.advance(0)
    clock.jump(20)
    await take_slot(store, A, waiting_offer(age=20))

    own_redis.start()
    async with asyncio.timeout(10):
        while not link.is_up:
            await clock.advance(PROBE_INTERVAL_SECONDS)
    assert await wait_without_slot(store, A, waiting_offer()) == pytest.approx(
        10 + PROBE_INTERVAL_SECONDS, abs=1
    )
    assert (await store.status()).policy == "priority"
    await link.aclose()
