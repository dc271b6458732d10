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
    """Makes the stores of so many processes that share a line."""

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


def waiting(size=1, *, newcomers=0, age=0.0, lead=None):
    """A line whose first caller has waited `age` seconds."""
    lead = age if lead is None else lead
    return Offer(size, newcomers, round(age * SECOND), round(lead * SECOND))


def arriving(newcomers=1):
    return Offer(0, newcomers)


GONE = Offer(0)


async def take(store, worker=A, offer=None):
    """Ask, and return the turn that must have come."""
    verdict = await store.ask(worker, offer or arriving())
    assert verdict.slot is not None
    return verdict.slot


async def refused(store, worker=A, offer=None):
    """Ask, and return the seconds to wait for the turn that must not have come."""
    verdict = await store.ask(worker, offer or arriving())
    assert verdict.slot is None
    return verdict.wait_us / SECOND


# ---------------------------------------------------------------- the pace


async def test_the_first_turn_comes_at_once_and_the_next_an_interval_later(store, store_time):
    first = await store.ask(A, arriving(2))
    assert (first.admitted, first.slot is None, first.policy, first.wait_us) == (2, False, "fifo", SECOND)
    assert await refused(store, A, waiting()) == 1

    await store_time.advance(0.999999)
    assert await refused(store, A, waiting(age=0.999999)) == 0.000001
    await store_time.advance(0.000001)

    second = await store.ask(A, waiting(age=1))
    assert second.slot.number == first.slot.number + 1


async def test_a_line_that_was_idle_saves_no_turns_up(store, store_time):
    await take(store)
    await store_time.advance(60)
    await take(store)
    assert await refused(store) == 1


async def test_without_waiting_callers_no_slot_is_assigned(store):
    verdict = await store.ask(A, GONE)
    assert (verdict.admitted, verdict.slot) == (0, None)
    assert await store.status() == PaceStatus("fifo", 0, 100, None, 0)
    await take(store)


async def test_twenty_workers_asking_at_once_get_one_turn_and_as_many_places_as_there_are(stores):
    fleet = stores(20, capacity=30)
    verdicts = await asyncio.gather(
        *(store.ask(f"{number:032x}", arriving(2)) for number, store in enumerate(fleet))
    )
    assert sum(verdict.slot is not None for verdict in verdicts) == 1
    assert sum(verdict.admitted for verdict in verdicts) == 31  # the one with the turn has left the line
    assert (await fleet[0].status()).size == 30


# ---------------------------------------------------------------- who is next


async def test_the_slot_goes_to_the_worker_with_the_earliest_caller(stores, store_time):
    ours, theirs = stores(2)
    await take(ours)
    await refused(ours, A, waiting(age=0.1))
    await refused(theirs, B, waiting(age=0.2))
    await store_time.advance(1)

    assert await refused(ours, A, waiting(age=1.1)) == POLL
    await take(theirs, B, waiting(age=1.2))
    assert await refused(ours, A, waiting(age=1.1)) == 1


async def test_by_priority_it_goes_to_the_one_with_the_greater_lead(stores, store_time):
    ours, theirs = stores(2, policy="priority")
    await take(ours)
    await refused(ours, A, waiting(age=0.5, lead=-9.5))
    await refused(theirs, B, waiting(age=0.1, lead=0.1))
    await store_time.advance(1)
    assert await refused(ours, A, waiting(age=1.5, lead=-8.5)) == POLL
    await take(theirs, B, waiting(age=1.1, lead=1.1))


async def test_a_tie_goes_to_the_lower_name(stores, store_time):
    ours, theirs = stores(2)
    await take(ours)
    await refused(theirs, B, waiting())
    await refused(ours, A, waiting())
    await store_time.advance(1)
    assert await refused(theirs, B, waiting(age=1)) == POLL
    await take(ours, A, waiting(age=1))


async def test_a_withdrawn_offer_does_not_delay_others(stores, store_time):
    ours, theirs = stores(2)
    await take(ours)
    await refused(ours, A, waiting(age=0.5))
    await refused(theirs, B, waiting())
    await ours.ask(A, GONE)
    await store_time.advance(1)
    await take(theirs, B, waiting(age=1))


async def test_switching_the_policy_holds_for_every_worker_from_the_next_question_on(stores, store_time):
    ours, theirs = stores(2)
    await take(ours)
    old, urgent = waiting(age=0.5, lead=-9.5), waiting(age=0.1, lead=0.1)
    await refused(ours, A, old)
    await refused(theirs, B, urgent)
    await ours.set_policy("priority")
    await store_time.advance(1)

    verdict = await theirs.ask(B, waiting(age=1.1, lead=1.1))

    assert verdict.slot is not None
    assert verdict.policy == "priority"
    assert (await theirs.status()).policy == "priority"


async def test_the_policy_set_outlasts_the_one_a_later_worker_begins_with(stores):
    first, later = stores(2)
    await first.set_policy("priority")
    assert (await later.status()).policy == "priority"
    assert (await later.ask(B, arriving())).policy == "priority"


# ---------------------------------------------------------------- workers that die


async def test_a_dead_workers_offer_is_waited_for_no_longer_than_the_grace(stores, store_time):
    ours, theirs = stores(2)
    await take(theirs, B)
    await refused(theirs, B, waiting(5, age=0.5))  # and is killed
    await refused(ours, A, waiting())
    assert (await ours.status()).size == 6

    waited = 1.0
    await store_time.advance(1)
    while (verdict := await ours.ask(A, waiting(age=waited))).slot is None:
        assert verdict.wait_us / SECOND == POLL
        waited += POLL
        await store_time.advance(POLL)

    assert waited == pytest.approx(1 + GRACE)
    assert (await ours.status()).size == 0


async def test_a_live_worker_keeps_its_place_however_often_others_go_first(stores, store_time):
    ours, theirs = stores(2)
    await take(theirs, B, arriving())
    for second in range(5):
        await refused(ours, A, waiting(age=second))
        await refused(theirs, B, waiting(age=9))
        await store_time.advance(1)
        assert await refused(ours, A, waiting(age=second + 1)) == POLL
        await take(theirs, B, waiting(age=10))
    assert (await ours.status()).size == 1


@pytest.mark.parametrize(
    ("interval", "grace", "poll"), [(0.1, 0.05, 0.005), (1, 0.1, 0.02), (5, 0.5, 0.025), (60, 1, 0.025)]
)
async def test_grace_and_poll_follow_the_interval_within_bounds(interval, grace, poll):
    options = PacedQueueOptions(interval_seconds=interval)
    assert (options.grace_us, options.poll_us) == (grace * SECOND, poll * SECOND)


# ---------------------------------------------------------------- capacity


async def test_the_capacity_is_that_of_all_workers_together(stores, store_time):
    ours, theirs = stores(2, capacity=5)
    await take(ours, A, arriving(4))
    verdict = await theirs.ask(B, arriving(4))
    assert (verdict.admitted, verdict.slot, verdict.retry_after) == (2, None, 1)
    assert (await ours.ask(A, waiting(3, newcomers=1))).admitted == 0
    assert (await ours.status()).size == 5

    await ours.ask(A, waiting(2))  # one has left
    verdict = await theirs.ask(B, waiting(2, newcomers=4))

    assert verdict.admitted == 1
    await store_time.advance(1)
    assert (await ours.ask(A, waiting(2, newcomers=2, age=1))).admitted == 1  # another has its turn


async def test_a_full_queue_admits_a_caller_that_is_next_and_due(stores, store_time):
    ours, theirs = stores(2, capacity=1, policy="priority")
    await take(ours, A, arriving(2))
    await store_time.advance(1)
    verdict = await theirs.ask(B, Offer(0, 2, 0, 2 * SECOND))
    assert (verdict.admitted, verdict.slot is None) == (1, False)
    assert (await ours.status()).size == 1


async def test_the_status_shows_the_line_over_all_workers(stores, store_time):
    ours, theirs = stores(2, capacity=7)
    await take(ours)
    await refused(ours, A, waiting(2, age=0.25))
    await refused(theirs, B, waiting(3, age=0.5))
    await store_time.advance(0.25)
    assert await ours.status() == await theirs.status() == PaceStatus("fifo", 5, 7, 0.75, 0.75)


async def test_the_status_contains_the_time_until_the_next_slot(stores, store_time):
    ours, theirs = stores(2)

    async def due():
        seconds = (await ours.status()).next_slot_seconds
        assert (await theirs.status()).next_slot_seconds == seconds
        return seconds

    assert await due() == 0
    turn = await take(ours)
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


# ---------------------------------------------------------------- turns given back


async def test_a_turn_given_back_is_due_at_once(stores, store_time):
    ours, theirs = stores(2)
    turn = await take(ours)
    await store_time.advance(0.25)
    await ours.give_back(turn)
    await take(theirs, B)
    assert await refused(ours) == 1


async def test_workers_that_wait_for_a_later_slot_do_not_delay_others_until_their_next_offer(
    stores, store_time
):
    ours, theirs = stores(2)
    turn = await take(ours)
    await refused(theirs, B, waiting(age=5))
    await store_time.advance(0.25)
    await ours.give_back(turn)

    again = await take(ours, A, waiting())
    await ours.give_back(again)
    await take(theirs, B, waiting(age=5.25))


async def test_given_back_twice_it_counts_once(store, store_time):
    turn = await take(store)
    await store.give_back(turn)
    await store.give_back(turn)
    again = await take(store)
    await store.give_back(turn)
    assert await refused(store) == 1
    assert again.number == turn.number + 1


async def test_given_back_after_another_was_given_it_is_lost(store, store_time):
    early = await take(store)
    await store_time.advance(1)
    await take(store)
    await store.give_back(early)
    assert await refused(store) == 1


# ---------------------------------------------------------------- postponing


async def test_postponed_no_worker_gets_a_turn_until_then(stores, store_time):
    ours, theirs = stores(2)
    await ours.postpone(5)
    await theirs.postpone(3)
    assert await refused(theirs, B, waiting()) == 5
    await store_time.advance(4.999999)
    assert await refused(theirs, B, waiting(age=4.999999)) == 0.000001
    await store_time.advance(0.000001)
    await take(theirs, B, waiting(age=5))


async def test_postponing_brings_no_turn_forward_and_giving_back_ends_no_delay(store):
    turn = await take(store)
    await store.postpone(0.5)
    assert await refused(store, A, waiting()) == 1
    await store.give_back(turn)
    assert await refused(store, A, waiting()) == 0.5


async def test_while_postponed_live_lines_count(store, store_time):
    await store.postpone(30)
    await refused(store, A, waiting(3))
    await store_time.advance(29)
    assert (await store.status()).size == 3


# ---------------------------------------------------------------- when the clock jumps

HOUR = 3600


async def test_a_clock_set_back_delays_no_caller_for_longer_than_an_interval(store, store_time):
    await take(store)
    await store_time.shift(-HOUR)
    assert (await store.status()).next_slot_seconds == 1
    for left in (1, 0.75, 0.5, 0.25):  # asking meanwhile puts nothing off
        assert await refused(store, A, waiting(age=1 - left)) == left
        await store_time.advance(0.25)
    await take(store, A, waiting(age=1))


@pytest.mark.parametrize("back", [2, HOUR])
async def test_a_clock_set_back_postpones_for_no_longer_than_before(store, store_time, back):
    await store.postpone(5)
    await store_time.shift(-back)
    assert (await store.status()).next_slot_seconds <= 5
    wait = await refused(store, A, waiting())
    assert wait <= 5
    for part in range(4):  # asking meanwhile puts nothing off
        await store_time.advance(wait / 4)
        verdict = await store.ask(A, waiting(age=(part + 1) * wait / 4))
    assert verdict.slot is not None


async def test_a_clock_set_back_leaves_no_place_to_a_dead_worker_for_longer_than_before(stores, store_time):
    """Its callers took their places in the line for an hour."""
    ours, theirs = stores(2, capacity=3)
    await take(ours)
    await refused(theirs, B, waiting(3))
    await store_time.shift(-HOUR)
    await store_time.advance(1 + GRACE)
    assert (await ours.status()).size == 0
    assert (await ours.ask(A, arriving(3))).admitted == 3


async def test_a_clock_set_back_takes_no_place_from_a_worker_that_lives(stores, store_time):
    ours, theirs = stores(2, capacity=3)
    await take(ours)
    await refused(theirs, B, waiting(3))
    await store_time.shift(-HOUR)
    await refused(theirs, B, waiting(3))
    assert (await ours.status()).size == 3
    assert (await ours.ask(A, arriving(1))).admitted == 0


async def test_a_clock_set_forward_gives_a_turn_at_once_and_then_keeps_the_pace(store, store_time):
    await take(store)
    await store_time.shift(HOUR)
    if store_time.link is None:
        await store_time.advance(1)  # memory goes by a clock that does not jump
    await take(store, A, waiting())
    assert await refused(store, A, waiting()) == 1


# ---------------------------------------------------------------- Redis alone


@pytest.fixture
def needs_redis(store_time):
    if store_time.link is None:
        pytest.skip("memory is lost with its workers")


@pytest.mark.usefixtures("needs_redis")
class TestRedis:
    async def test_emptied_it_gives_no_turn_within_an_interval(self, stores, store_time):
        ours, theirs = stores(2)
        turn = await take(ours)
        await store_time.link.send("FLUSHALL")
        await store_time.publish()

        assert await refused(ours, A, waiting()) == 1
        assert await refused(theirs, B, waiting()) == 1
        await store_time.advance(1)
        assert (await take(ours, A, waiting(age=1))).number == turn.number + 1

    async def test_after_a_loss_of_data_the_offer_of_a_worker_without_a_slot_postpones_the_next_slot(
        self, stores, store_time
    ):
        ours, theirs = stores(2)
        await take(ours)
        await refused(theirs, B, waiting())
        await store_time.advance(0.9)
        await store_time.link.send("FLUSHALL")
        await store_time.publish()
        assert await refused(theirs, B, waiting(age=0.9)) == 1

    async def test_brought_back_as_it_was_a_while_ago_it_gives_no_turn_within_an_interval(
        self, stores, store_time
    ):
        (ours,) = stores()
        await take(ours)
        (key,) = await store_time.link.send("KEYS", "pace:*")
        past = await store_time.link.send("DUMP", key)
        await store_time.advance(1)
        turn = await take(ours)
        await store_time.link.send("RESTORE", key, 0, past, "REPLACE")

        assert await refused(ours, A, waiting()) == 1
        await ours.give_back(turn)
        assert await refused(ours, A, waiting()) == 1

    async def test_after_a_loss_of_data_the_policy_comes_from_a_worker(self, stores, store_time):
        ours, theirs = stores(2)
        await ours.set_policy("priority")
        await theirs.ask(B, arriving())  # and hears of it
        await store_time.link.send("FLUSHALL")
        await store_time.publish()
        assert (await theirs.status()).policy == "priority"
        assert (await theirs.ask(B, waiting())).policy == "priority"
        assert (await ours.status()).policy == "priority"

    async def test_dead_workers_leave_nothing_behind(self, stores, store_time):
        ours, theirs = stores(2)
        await take(ours)
        await refused(theirs, B, waiting())
        await store_time.advance(10)
        await take(ours)
        assert await store_time.link.send("KEYS", "pace:*:offers") == []

    async def test_all_keys_of_a_line_share_one_slot(self, store, store_time):
        await take(store, A, arriving(3))
        await store.postpone(1)
        await store.set_policy("priority")
        keys = set(await store_time.link.send("KEYS", "*")) - {b"test:now_us"}
        assert keys == {b"pace:{upstream}", b"pace:{upstream}:offers"}

    async def test_a_question_is_one_round_trip(self, store, store_time):
        await take(store)
        before = store_time.link.round_trips
        await refused(store, A, waiting(3, newcomers=2))
        assert store_time.link.round_trips == before + 1


# ---------------------------------------------------------------- through the queue


class Watched:
    """A store that knows how many of its questions are under way."""

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
    """Several workers' queues, and who started when."""

    def __init__(self, stores, options, store_time, listener):
        self.time = store_time
        self.stores = [Watched(store) for store in stores]
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
        await self.quiet()

    async def quiet(self):
        """Let every worker ask until it has nothing more to ask now."""
        async with asyncio.timeout(10):
            await settle()
            while any(store.questions for store in self.stores):
                await settle()

    async def pass_time(self, seconds):
        """Let time pass in the store and for the workers alike."""
        clock, end = self.time.clock, self.time.clock.monotonic() + seconds
        while clock._timers and clock._timers[0][0] <= end:
            await self.time.advance(max(0, clock._timers[0][0] - clock.monotonic()))
            await clock.advance(0)
            await self.quiet()
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


async def test_one_line_over_two_workers_in_order_of_arrival_and_at_the_pace(fleet):
    fleet = fleet()
    for number in range(8):
        await fleet.arrive((number // 2) % 2, number)
        await fleet.pass_time(0.01)
    await fleet.pass_time(8)
    assert [name for name, _ in fleet.starts] == list(range(8))
    assert [start for _, start in fleet.starts] == pytest.approx(list(range(8)), abs=1e-6)


async def test_one_line_over_two_workers_by_priority(fleet):
    fleet = fleet(policy="priority")
    await fleet.arrive(0, "first")
    for worker, name, priority in ((0, "d", 3), (1, "b", 1), (0, "a", 0), (1, "c", 2)):
        await fleet.arrive(worker, name, priority=priority)
    await fleet.pass_time(5)
    assert [name for name, _ in fleet.starts] == ["first", "a", "b", "c", "d"]


async def test_a_switch_of_policy_reaches_every_worker_and_loses_no_place(fleet):
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


async def test_the_capacity_holds_over_the_workers(fleet):
    fleet = fleet(capacity=4)
    for number in range(8):
        await fleet.arrive(number % 2, number)
    refused = [name for name, caller in fleet.callers.items() if caller.done() and caller.exception()]
    assert refused == [5, 6, 7]
    assert all(isinstance(fleet.callers[name].exception(), QueueFullError) for name in refused)
    fleet.callers[2].cancel()
    await fleet.quiet()
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
        self.is_away = False
        self.denied = set()

    def __getattr__(self, name):
        async def method(*args):
            if self.is_away or name in self.denied:
                raise StorageUnavailableError("away")
            return await getattr(self._store, name)(*args)

        return method


class TestFailingOver:
    @pytest.fixture
    def fleets(self, stores):
        (store,) = stores(capacity=10)
        return Outage(store)

    @pytest.fixture
    def store(self, fleets, store_time):
        """Over a fleet of four workers, of an interval of one second."""
        return FailoverPaceStore(fleets, PacedQueueOptions(capacity=10), store_time.clock, workers=4)

    async def test_while_the_shared_store_is_unavailable_a_worker_keeps_its_share(
        self, store, fleets, store_time
    ):
        await take(store)
        fleets.is_away = True
        assert await refused(store, A, waiting()) == 4
        await store_time.advance(4)
        await take(store, A, waiting(age=4))
        assert await refused(store) == 4
        assert (await store.ask(A, waiting(newcomers=9))).admitted == 1
        assert await store.status() == PaceStatus("fifo", 2, 2, 0, 4)

    async def test_after_an_outage_no_slot_is_assigned_before_every_worker_has_switched_back(
        self, store, fleets, store_time
    ):
        await take(store)
        fleets.is_away = True
        await refused(store, A, waiting())
        await store_time.advance(4)
        await take(store, A, waiting(age=4))
        fleets.is_away = False
        assert await refused(store, A, waiting()) == 1 + PROBE_INTERVAL_SECONDS
        await store_time.advance(1 + PROBE_INTERVAL_SECONDS)
        await take(store, A, waiting(age=1))

    async def test_the_policy_last_known_holds_meanwhile(self, store, fleets, store_time):
        await fleets.set_policy("priority")
        await take(store)
        fleets.is_away = True
        assert (await store.ask(A, waiting())).policy == "priority"
        assert (await store.status()).policy == "priority"

    async def test_the_policy_set_through_it_holds_meanwhile(self, store, fleets):
        await store.set_policy("priority")
        fleets.is_away = True
        assert (await store.status()).policy == "priority"

    async def test_it_takes_no_policy_that_the_others_would_not_hear_of(self, store, fleets):
        fleets.is_away = True
        with pytest.raises(StorageUnavailableError):
            await store.set_policy("priority")
        assert (await store.status()).policy == "fifo"

    async def test_a_delay_holds_here_and_the_fleet_hears_of_it_later(self, store, fleets, store_time):
        fleets.is_away = True
        await store.postpone(10)
        assert await refused(store, A, waiting()) == 10
        await store_time.advance(2)
        fleets.is_away = False
        assert await refused(store, A, waiting(age=2)) == 8

    async def test_a_delay_in_the_shared_store_applies_to_the_local_store_too(self, store, fleets):
        await store.postpone(10)
        fleets.is_away = True
        assert await refused(store, A, waiting()) == 10

    async def test_a_turn_goes_back_where_it_came_from_or_nowhere(self, store, fleets, store_time):
        turn = await take(store)
        fleets.is_away = True
        await refused(store, A, waiting())
        await store_time.advance(4)
        own = await take(store, A, waiting(age=4))
        await store.give_back(turn)
        assert await refused(store, A, waiting()) == 4
        await store.give_back(own)
        await take(store, A, waiting())

    @pytest.mark.parametrize("denied", ["ask", "postpone"])
    async def test_a_store_that_refuses_one_method_delays_no_slot_of_the_worker(
        self, store, fleets, store_time, denied
    ):
        await take(store)
        await store_time.advance(1)
        fleets.denied = {"ask", denied}
        assert await refused(store, A, waiting()) == 4
        fleets.denied = {denied}
        for left in (3, 2, 1):
            await store_time.advance(1)
            assert await refused(store, A, waiting()) == left
        await store_time.advance(1)
        await take(store, A, waiting())

    async def test_a_store_that_comes_and_goes_does_not_stop_the_slots(self, store, fleets, store_time):
        slots = []
        for _ in range(200):
            fleets.is_away = not fleets.is_away  # so that every question to it is the end of an outage
            verdict = await store.ask(A, waiting())
            if verdict.slot is not None:
                slots.append(store_time.clock.monotonic())
            await store_time.advance(verdict.wait_us / SECOND)
        assert len(slots) >= 0.1 * store_time.clock.monotonic()
        gaps = [later - earlier for earlier, later in pairwise(slots)]
        assert min(gaps) >= 1

    async def test_one_that_only_hides_its_status_gives_the_slots_all_the_same(
        self, store, fleets, store_time
    ):
        await take(store)
        fleets.denied = {"status"}
        for _ in range(3):
            assert (await store.status()).capacity == 2
            await store_time.advance(1)
            await take(store, A, waiting(age=1))

    async def test_a_delay_that_did_not_reach_the_fleet_reaches_it_with_the_next_question(
        self, store, fleets, store_time
    ):
        await take(store)
        fleets.denied = {"postpone"}
        await store.postpone(10)
        fleets.denied = set()
        await store_time.advance(2)
        assert await refused(store, A, waiting()) == 8
        assert (await fleets.status()).next_slot_seconds == 8

    async def test_while_callers_wait_here_the_status_shows_them(self, store, fleets, store_time):
        await take(store)
        fleets.denied = {"ask"}
        await refused(store, A, waiting(2))
        status = await store.status()
        assert (status.size, status.capacity) == (2, 2)
        fleets.denied = set()
        await refused(store, A, waiting(2))
        status = await store.status()
        assert (status.size, status.capacity) == (2, 10)

    async def test_an_outage_is_logged_once_and_so_is_its_end(self, store, fleets, caplog):
        for away in (True, True, False, False):
            fleets.is_away = away
            await store.status()
            await store.ask(A, waiting())
        assert [record.message for record in caplog.records] == ["pace_local", "pace_shared_again"]


async def test_when_redis_dies_the_line_goes_on_and_is_shared_again_once_it_is_back(own_redis, clock):
    options = PacedQueueOptions(interval_seconds=10)
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock)
    store = FailoverPaceStore(RedisPaceStore("upstream", options, link), options, clock, workers=2)
    await store.set_policy("priority")
    await take(store)

    own_redis.kill()
    assert await refused(store, A, waiting()) == 20
    await clock.advance(0)
    clock.jump(20)
    await take(store, A, waiting(age=20))

    own_redis.start()
    async with asyncio.timeout(10):
        while not link.is_up:
            await clock.advance(PROBE_INTERVAL_SECONDS)
    assert await refused(store, A, waiting()) == pytest.approx(10 + PROBE_INTERVAL_SECONDS, abs=1)
    assert (await store.status()).policy == "priority"
    await link.aclose()
