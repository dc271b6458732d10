"""The read-through cache over its memory store; two caches over one store stand for two workers."""

import asyncio
import gc
import math
from contextvars import ContextVar

import pytest

from src.resilience.building_blocks import recent_failures
from src.resilience.cache.answer import Answer
from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.policy import Compute, ReadThroughCache
from src.resilience.cache.store import Lease
from src.resilience.events import CacheAnswered, CacheRefreshed, CacheRefreshFailed
from tests.support.clock import FakeClock, FakeRandomizer, settle
from tests.support.listener import RecordingListener

KEY = "summary:cpu:hourly"
NEVER_EARLY = 0.0
ALWAYS_EARLY = math.nextafter(1.0, 0.0)
REQUEST = ContextVar("request", default="none")


class Computation:
    """A computation that returns a body or raises an error once `gate` is set, and counts its starts."""

    def __init__(self, *bodies: bytes | Exception) -> None:
        self.begun = 0
        self.gate = asyncio.Event()
        self._bodies = bodies

    async def __call__(self) -> bytes:
        body = self._bodies[min(self.begun, len(self._bodies) - 1)]
        self.begun += 1
        await self.gate.wait()
        if isinstance(body, Exception):
            raise body
        return body


class Reading:
    """A computation that reads `written` when it begins, and returns the value once `gate` is set."""

    def __init__(self) -> None:
        self.begun = 0
        self.written = b"old"
        self.gate = asyncio.Event()

    async def __call__(self) -> bytes:
        self.begun += 1
        read = self.written
        await self.gate.wait()
        return read


def computation_of(*bodies: bytes | Exception) -> Computation:
    computation = Computation(*bodies)
    computation.gate.set()
    return computation


class Fleet:
    """Caches of several workers over one store."""

    def __init__(self, clock: FakeClock, listener: RecordingListener, **options: float) -> None:
        self.clock = clock
        self.listener = listener
        self.options = CacheOptions(
            **{"ttl_seconds": 300, "stale_seconds": 3600, "lease_seconds": 10, **options}
        )
        self.store = MemoryCacheStore(clock)

    def worker(self, draw: float = NEVER_EARLY, **kwargs: object) -> ReadThroughCache:
        return ReadThroughCache(
            self.store,
            self.options,
            self.clock,
            FakeRandomizer([draw]),
            name="summaries",
            listener=self.listener,
            **kwargs,
        )


@pytest.fixture
def fleet(clock: FakeClock, listener: RecordingListener) -> Fleet:
    return Fleet(clock, listener)


async def begin_refresh(cache: ReadThroughCache, compute: Compute) -> "asyncio.Task[Answer]":
    caller = asyncio.create_task(cache.get(KEY, compute, refresh=True))
    await settle()
    return caller


class TestBegin:
    async def test_begin_reads_from_the_store_at_once_and_computes_only_for_the_result(self, fleet: Fleet):
        asked, compute = [], computation_of(b"one")
        fleet.store.read = lambda key, options: (
            asked.append(key) or MemoryCacheStore.read(fleet.store, key, options)
        )

        read = fleet.worker().begin(KEY, compute)
        assert asked == [KEY]
        await settle()
        assert compute.begun == 0
        assert (await read.result()).body == b"one"

    async def test_a_read_need_not_be_finished(self, fleet: Fleet):
        fleet.worker().begin(KEY, computation_of(b"one"))
        fleet.worker().begin(KEY, computation_of(b"one"), refresh=True)
        gc.collect()  # a coroutine that was never awaited causes a warning, and a warning is an error

    async def test_a_refresh_does_not_read_the_entry(self, fleet: Fleet):
        fleet.store.read = None
        assert (await fleet.worker().begin(KEY, computation_of(b"one"), refresh=True).result()).body == b"one"


class TestGet:
    async def test_a_miss_computes_and_a_second_call_hits(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"one")

        first = await cache.get(KEY, compute)
        fleet.clock.jump(12.5)
        second = await cache.get(KEY, compute)

        assert first == Answer(b"one", "miss", 0.0)
        assert second == Answer(b"one", "hit", 12.5)
        assert compute.begun == 1

    async def test_an_entry_is_fresh_for_exactly_its_ttl(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"one", b"two")
        await cache.get(KEY, compute)

        fleet.clock.jump(299.999)
        assert (await cache.get(KEY, compute)).outcome == "hit"

        fleet.clock.jump(0.001)
        assert await cache.get(KEY, compute) == Answer(b"two", "miss", 0.0)

    async def test_a_get_without_a_lookup_finds_the_entry_itself(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"one")
        await cache.get(KEY, compute)
        fleet.clock.jump(5)

        assert await cache.get(KEY, compute) == Answer(b"one", "hit", 5.0)

    async def test_a_refresh_computes_in_spite_of_a_fresh_entry(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"one", b"two")
        await cache.get(KEY, compute)

        refreshed = await cache.get(KEY, compute, refresh=True)

        assert refreshed == Answer(b"two", "miss", 0.0)
        assert (await cache.get(KEY, compute)).body == b"two"

    async def test_every_answer_and_every_computation_sends_an_event(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"one", ValueError())
        await cache.get(KEY, compute)
        await cache.get(KEY, compute)
        await cache.get(KEY, compute, refresh=True)

        assert fleet.listener.events == [
            CacheRefreshed(policy="summaries", early=False),
            CacheAnswered(policy="summaries", outcome="miss"),
            CacheAnswered(policy="summaries", outcome="hit"),
            CacheAnswered(policy="summaries", outcome="stale"),
        ]


class TestSingleFlightInAProcess:
    async def test_concurrent_callers_share_one_computation(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one")
        callers = [asyncio.create_task(cache.get(KEY, compute)) for _ in range(50)]
        await settle()

        compute.gate.set()

        assert {answer.body for answer in await asyncio.gather(*callers)} == {b"one"}
        assert compute.begun == 1

    async def test_keys_do_not_wait_for_one_another(self, fleet: Fleet):
        cache = fleet.worker()
        slow = asyncio.create_task(cache.get("slow", Computation(b"slow")))
        await settle()

        assert (await cache.get("quick", computation_of(b"quick"))).body == b"quick"

        assert not slow.done()
        await cache.aclose()
        await asyncio.gather(slow, return_exceptions=True)

    async def test_a_cancelled_first_caller_does_not_affect_other_callers(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one")
        first = asyncio.create_task(cache.get(KEY, compute))
        await settle()
        second = asyncio.create_task(cache.get(KEY, compute))
        await settle()

        first.cancel()
        await settle()
        compute.gate.set()

        assert (await second).body == b"one"
        assert first.cancelled()
        assert compute.begun == 1

    async def test_a_computation_without_callers_still_fills_the_cache(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one")
        caller = asyncio.create_task(cache.get(KEY, compute))
        await settle()
        caller.cancel()
        await settle()

        compute.gate.set()
        await settle()

        assert await cache.get(KEY, compute) == Answer(b"one", "hit", 0.0)

    async def test_an_error_of_a_computation_without_callers_is_not_raised(self, fleet: Fleet):
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        compute = Computation(ValueError("no"))
        caller = asyncio.create_task(fleet.worker().get(KEY, compute))
        await settle()
        caller.cancel()
        await settle()

        compute.gate.set()
        await settle()
        del caller  # the traceback of its cancellation refers to the computation
        gc.collect()

        assert complaints == []

    async def test_all_callers_get_the_error_and_the_next_one_tries_again(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(ValueError("no"), b"two")
        callers = [asyncio.create_task(cache.get(KEY, compute)) for _ in range(3)]
        await settle()
        compute.gate.set()

        errors = await asyncio.gather(*callers, return_exceptions=True)

        assert [str(error) for error in errors] == ["no"] * 3
        assert (await cache.get(KEY, compute)).body == b"two"

    async def test_closing_cancels_running_computations(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one")
        caller = asyncio.create_task(cache.get(KEY, compute))
        await settle()

        await cache.aclose()

        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await fleet.store.take_lease(KEY, "next", 300, fleet.options) is Lease.TAKEN


class TestSingleFlightAcrossWorkers:
    async def test_workers_wait_for_the_worker_that_computes(self, fleet: Fleet):
        compute = Computation(b"one")
        callers = [asyncio.create_task(fleet.worker().get(KEY, compute)) for _ in range(5)]
        await fleet.clock.advance(1.0)

        compute.gate.set()
        await fleet.clock.advance(0.02)

        answers = await asyncio.gather(*callers)
        assert {(answer.body, answer.outcome) for answer in answers} == {(b"one", "miss")}
        assert compute.begun == 1

    async def test_a_failed_computation_lets_another_worker_try_at_once(self, fleet: Fleet):
        failing, working = Computation(ValueError("no")), computation_of(b"two")
        first = asyncio.create_task(fleet.worker().get(KEY, failing))
        await settle()
        second = asyncio.create_task(fleet.worker().get(KEY, working))
        await settle()

        failing.gate.set()
        await fleet.clock.advance(0.02)

        assert (await second).body == b"two"
        with pytest.raises(ValueError, match="no"):
            await first

    async def test_if_the_lease_holder_dies_exactly_one_worker_takes_over(self, fleet: Fleet):
        await fleet.store.take_lease(KEY, "dead", 300, fleet.options)
        compute = Computation(b"one")
        callers = [asyncio.create_task(fleet.worker().get(KEY, compute)) for _ in range(4)]

        await fleet.clock.advance(9.9)
        assert compute.begun == 0
        await fleet.clock.advance(9.9)
        compute.gate.set()
        await fleet.clock.advance(0.1)

        assert {answer.body for answer in await asyncio.gather(*callers)} == {b"one"}
        assert compute.begun == 1

    async def test_a_caller_waits_at_most_for_a_computation_and_a_lease(self, fleet: Fleet):
        await fleet.store.take_lease(KEY, "first", 300, fleet.options)
        hopeless = asyncio.create_task(fleet.worker().get(KEY, computation_of(b"own")))
        for _ in range(8):
            await fleet.clock.advance(5)
            assert not hopeless.done()
            await fleet.store.renew(KEY, "first", fleet.options)
        await fleet.clock.advance(0.02)

        assert (await hopeless).body == b"own"
        assert await fleet.store.read(KEY, fleet.options) is None, "the computation had no lease"

    async def test_a_computation_slower_than_a_lease_keeps_it(self, fleet: Fleet):
        slow, needless = Computation(b"slow"), computation_of(b"needless")
        callers = [asyncio.create_task(fleet.worker().get(KEY, slow))]
        await settle()
        callers.append(asyncio.create_task(fleet.worker().get(KEY, needless)))
        await fleet.clock.advance(29)
        assert not any(caller.done() for caller in callers)

        slow.gate.set()
        await fleet.clock.advance(0.02)

        assert [(await caller).body for caller in callers] == [b"slow"] * 2
        assert needless.begun == 0
        assert await fleet.store.read(KEY, fleet.options) is not None

    async def test_a_result_after_the_longest_computation_time_is_returned_but_not_stored(self, fleet: Fleet):
        slow = Computation(b"slow")
        caller = asyncio.create_task(fleet.worker().get(KEY, slow))
        await fleet.clock.advance(30)
        assert await fleet.store.take_lease(KEY, "next", 0, fleet.options) is Lease.TAKEN

        slow.gate.set()

        assert (await caller).body == b"slow"
        assert await fleet.store.read(KEY, fleet.options) is None

    @pytest.mark.parametrize("ending", [b"answer", ValueError("no")])
    async def test_an_ended_computation_does_not_renew_its_lease(
        self, fleet: Fleet, ending: bytes | Exception, monkeypatch: pytest.MonkeyPatch
    ):
        renewed, renew = [], fleet.store.renew
        monkeypatch.setattr(fleet.store, "renew", lambda *args: renewed.append(args) or renew(*args))
        compute = Computation(ending)
        caller = asyncio.create_task(fleet.worker().get(KEY, compute))
        await fleet.clock.advance(4)
        compute.gate.set()
        await asyncio.gather(caller, return_exceptions=True)

        assert len(renewed) == 1
        await fleet.clock.advance(100)
        assert len(renewed) == 1


class TestStaleWhileComputing:
    @pytest.fixture
    async def expired(self, fleet: Fleet) -> Fleet:
        """Return a fleet with an answer that expired a second ago."""
        await fleet.worker().get(KEY, computation_of(b"old"))
        fleet.clock.jump(301)
        fleet.listener.events.clear()
        return fleet

    async def test_a_caller_gets_the_stale_answer_after_the_longest_wait(self, expired: Fleet):
        cache, compute = expired.worker(), Computation(b"new")
        caller = asyncio.create_task(cache.get(KEY, compute))
        await expired.clock.advance(0.999)
        assert not caller.done()

        await expired.clock.advance(0.001)

        assert await caller == Answer(b"old", "updating", 302.0)
        compute.gate.set()
        await settle()
        assert await cache.get(KEY, compute) == Answer(b"new", "hit")
        assert compute.begun == 1
        assert expired.listener.of(CacheAnswered)[0] == CacheAnswered(policy="summaries", outcome="updating")

    async def test_a_caller_that_comes_after_the_wait_gets_the_stale_answer_at_once(self, expired: Fleet):
        cache, compute = expired.worker(), Computation(b"new")
        first = asyncio.create_task(cache.get(KEY, compute))
        await expired.clock.advance(1)
        assert (await first).outcome == (await cache.get(KEY, compute)).outcome == "updating"
        assert compute.begun == 1
        await cache.aclose()

    async def test_callers_in_other_workers_get_the_stale_answer_too(self, expired: Fleet):
        await expired.store.take_lease(KEY, "dead", 0, expired.options)
        compute = Computation(b"new")
        callers = [asyncio.create_task(expired.worker().get(KEY, compute)) for _ in range(3)]
        await expired.clock.advance(1)
        assert [(await caller).outcome for caller in callers] == ["updating"] * 3

        await expired.clock.advance(9.02)
        assert compute.begun == 1, "one worker computes in place of the dead one"
        compute.gate.set()
        await expired.clock.advance(0.02)
        assert (await expired.worker().get(KEY, compute)).body == b"new"

    async def test_a_computation_shorter_than_the_wait_answers_the_caller(self, expired: Fleet):
        compute = Computation(b"new")
        caller = asyncio.create_task(expired.worker().get(KEY, compute))
        await expired.clock.advance(0.9)
        compute.gate.set()
        assert await caller == Answer(b"new", "miss")

    async def test_a_failure_within_the_wait_is_raised(self, expired: Fleet):
        error = TimeoutError("of the computation")
        compute = Computation(error)
        caller = asyncio.create_task(expired.worker(stale_on=(LookupError,)).get(KEY, compute))
        await expired.clock.advance(0.9)
        compute.gate.set()
        with pytest.raises(TimeoutError, match="of the computation"):
            await caller

    async def test_without_a_stale_answer_callers_wait_for_the_computation(self, fleet: Fleet):
        compute = Computation(b"new")
        caller = asyncio.create_task(fleet.worker().get(KEY, compute))
        await fleet.clock.advance(25)
        assert not caller.done()
        compute.gate.set()
        assert (await caller).outcome == "miss"

    async def test_an_invalidated_answer_is_not_served(self, expired: Fleet):
        cache, compute = expired.worker(), Computation(b"new")
        await cache.invalidate([KEY])
        caller = asyncio.create_task(cache.get(KEY, compute))
        await expired.clock.advance(5)
        assert not caller.done()
        compute.gate.set()
        assert (await caller).body == b"new"

    async def test_an_answer_beyond_the_stale_time_is_not_served(self, expired: Fleet):
        expired.clock.jump(3600 - 301 - 1)
        compute = Computation(b"new")
        caller = asyncio.create_task(expired.worker().get(KEY, compute))
        await expired.clock.advance(5)
        assert not caller.done()
        compute.gate.set()
        assert (await caller).body == b"new"

    async def test_a_refresh_waits_for_its_own_computation(self, expired: Fleet):
        compute = Computation(b"new")
        caller = await begin_refresh(expired.worker(), compute)
        await expired.clock.advance(5)
        assert not caller.done()
        compute.gate.set()
        assert await caller == Answer(b"new", "miss")

    async def test_with_a_wait_of_zero_the_stale_answer_is_served_at_once(
        self, clock: FakeClock, listener: RecordingListener
    ):
        fleet = Fleet(clock, listener, patience_seconds=0)
        await fleet.worker().get(KEY, computation_of(b"old"))
        clock.jump(301)
        cache, compute = fleet.worker(), Computation(b"new")

        assert (await cache.get(KEY, compute)).outcome == "updating"
        await settle()
        assert compute.begun == 1
        await cache.aclose()

    async def test_an_option_for_stale_answers_requires_a_stale_time(
        self, clock: FakeClock, listener: RecordingListener
    ):
        fleet = Fleet(clock, listener, stale_seconds=0, patience_seconds=0)
        await fleet.worker().get(KEY, computation_of(b"old"))
        clock.jump(301)
        assert await fleet.worker().get(KEY, computation_of(b"new")) == Answer(b"new", "miss")


class TestPlainFunctions:
    async def test_a_plain_function_is_refused_before_it_is_run(self, fleet: Fleet):
        begun = []

        def compute() -> bytes:
            begun.append("once")
            return b"one"

        for options in ({}, {"refresh": True}):
            with pytest.raises(TypeError, match="is a plain function"):
                await fleet.worker().get(KEY, compute, **options)
        assert begun == []

    async def test_a_stale_answer_does_not_hide_the_type_error(self, fleet: Fleet):
        await fleet.worker().get(KEY, computation_of(b"old"))
        fleet.clock.jump(301)
        with pytest.raises(TypeError):
            await fleet.worker().get(KEY, lambda: b"new")


class TestEventLoops:
    def test_consecutive_event_loops_can_use_the_cache(self, clock: FakeClock, listener: RecordingListener):
        cache = Fleet(clock, listener).worker()
        for refresh in (False, True, True):
            answers = asyncio.run(self.get_three_times(cache, refresh=refresh))
            assert {answer.body for answer in answers} == {b"one"}

    def test_a_computation_of_a_closed_event_loop_does_not_delay_others(
        self, clock: FakeClock, listener: RecordingListener
    ):
        fleet = Fleet(clock, listener)
        cache = fleet.worker()
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)

        async def begin() -> None:
            caller = asyncio.create_task(cache.get(KEY, Computation(b"never")))
            await settle()
            for task in (caller, *cache._computations._tasks):
                task._log_destroy_pending = False

        loop.run_until_complete(begin())
        loop.close()
        asyncio.set_event_loop(None)
        clock.jump(10)  # its lease

        assert asyncio.run(cache.get(KEY, computation_of(b"one"))).body == b"one"

    def test_a_second_event_loop_is_rejected_while_the_first_computes(
        self, clock: FakeClock, listener: RecordingListener
    ):
        cache = Fleet(clock, listener).worker()

        async def begin() -> None:
            asyncio.create_task(cache.get(KEY, Computation(b"one")))  # noqa: RUF006
            await settle()

        with asyncio.Runner() as runner:
            runner.run(begin())
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(cache.get(KEY, computation_of(b"two")))
            runner.run(cache.aclose())

    @staticmethod
    async def get_three_times(cache: ReadThroughCache, *, refresh: bool) -> list[Answer]:
        compute = computation_of(b"one")
        return await asyncio.gather(*(cache.get(KEY, compute, refresh=refresh) for _ in range(3)))


class TestRefresh:
    async def test_a_write_during_a_refresh_is_seen_by_the_next_one(self, fleet: Fleet):
        cache, compute = fleet.worker(), Reading()
        before = await begin_refresh(cache, compute)

        compute.written = b"new"
        after = await begin_refresh(cache, compute)
        assert compute.begun == 1, "the second waits for the end of the first"
        compute.gate.set()

        assert (await before).body == b"old"
        assert (await after).body == b"new"
        assert (await cache.get(KEY, compute)).body == b"new"

    async def test_a_write_during_another_workers_refresh_is_seen_by_the_next_one(self, fleet: Fleet):
        compute = Reading()
        before = await begin_refresh(fleet.worker(), compute)
        await fleet.clock.advance(1)

        compute.written = b"new"
        after = await begin_refresh(fleet.worker(), compute)
        await fleet.clock.advance(5)
        compute.gate.set()
        await fleet.clock.advance(0.02)

        assert (await before).body == b"old"
        assert (await after).body == b"new"
        assert compute.begun == 2

    @pytest.mark.parametrize("is_same_worker", [True, False])
    async def test_a_write_during_a_plain_computation_is_seen_by_a_refresh(
        self, fleet: Fleet, is_same_worker: bool
    ):
        cache, compute = fleet.worker(), Reading()
        plain = asyncio.create_task(cache.get(KEY, compute))
        await settle()

        compute.written = b"new"
        refresh = await begin_refresh(cache if is_same_worker else fleet.worker(), compute)
        compute.gate.set()
        await fleet.clock.advance(0.02)

        assert (await plain).body == b"old"
        assert (await refresh).body == b"new"

    async def test_a_refresh_does_not_delay_callers_of_a_fresh_entry(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"new")
        await cache.get(KEY, computation_of(b"one"))
        refresh = await begin_refresh(cache, compute)

        assert await cache.get(KEY, compute) == Answer(b"one", "hit")

        compute.gate.set()
        assert await refresh == Answer(b"new", "miss")

    async def test_any_number_of_refreshes_in_one_process_cost_at_most_two_computations(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one", b"two")
        callers = [asyncio.create_task(cache.get(KEY, compute, refresh=True)) for _ in range(50)]
        await settle()

        compute.gate.set()

        bodies = [answer.body for answer in await asyncio.gather(*callers)]
        assert bodies == [b"one"] + [b"two"] * 49
        assert compute.begun == 2

    async def test_workers_share_a_computation_that_began_after_their_refresh(self, fleet: Fleet):
        compute = Reading()
        callers = [await begin_refresh(fleet.worker(), compute)]
        await fleet.clock.advance(1)

        compute.written = b"new"
        callers += [await begin_refresh(fleet.worker(), compute) for _ in range(5)]
        compute.gate.set()
        await fleet.clock.advance(0.02)

        assert [answer.body for answer in await asyncio.gather(*callers)] == [b"old"] + [b"new"] * 5
        assert compute.begun == 2

    async def test_the_failure_of_an_earlier_computation_does_not_fail_a_refresh(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(ValueError("no"), b"two")
        before = await begin_refresh(cache, compute)
        after = await begin_refresh(cache, compute)

        compute.gate.set()

        with pytest.raises(ValueError, match="no"):
            await before
        assert (await after).body == b"two"

    async def test_cancelled_callers_do_not_affect_the_computation_or_other_callers(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one", b"two")
        callers = [await begin_refresh(cache, compute) for _ in range(4)]

        callers[0].cancel()  # for whom it is computed
        callers[1].cancel()  # the caller waits for the end of the attempt
        await settle()
        compute.gate.set()

        assert [(await caller).body for caller in callers[2:]] == [b"two", b"two"]
        assert all(caller.cancelled() for caller in callers[:2])
        assert compute.begun == 2

    async def test_after_an_invalidation_a_refresh_does_not_wait_for_an_earlier_computation(
        self, fleet: Fleet
    ):
        cache, compute = fleet.worker(), Computation(b"old")
        before = await begin_refresh(cache, compute)

        await cache.invalidate([KEY])
        after = await begin_refresh(cache, computation_of(b"new"))

        assert after.done()
        assert (await after).body == b"new"
        compute.gate.set()
        assert (await before).body == b"old"

    async def test_closing_begins_no_refresh_for_waiting_callers(self, fleet: Fleet):
        cache, compute = fleet.worker(), Computation(b"one")
        callers = [await begin_refresh(cache, compute) for _ in range(3)]

        await cache.aclose()
        await settle()

        assert all(caller.cancelled() for caller in callers)
        assert compute.begun == 1


class TestInvalidation:
    async def test_an_invalidated_answer_is_computed_again(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"one", b"two")
        await cache.get(KEY, compute)

        await cache.invalidate([KEY])

        assert (await cache.get(KEY, compute)).body == b"two"

    async def test_a_computation_begun_before_a_write_does_not_fill_the_cache_after_it(self, fleet: Fleet):
        cache, old = fleet.worker(), Computation(b"old")
        caller = asyncio.create_task(cache.get(KEY, old))
        await settle()

        await cache.invalidate([KEY])
        old.gate.set()

        assert (await caller).body == b"old"
        assert await fleet.store.read(KEY, fleet.options) is None

    async def test_a_caller_after_the_write_does_not_join_a_computation_from_before(self, fleet: Fleet):
        cache, old = fleet.worker(), Computation(b"old")
        before = asyncio.create_task(cache.get(KEY, old))
        await settle()

        await cache.invalidate([KEY])
        after = await cache.get(KEY, computation_of(b"new"))
        old.gate.set()

        assert after.body == b"new"
        assert (await before).body == b"old"
        assert (await cache.get(KEY, old)).body == b"new"

    async def test_a_computation_begun_before_a_write_does_not_answer_callers_of_a_later_one(
        self, fleet: Fleet
    ):
        cache, old, new = fleet.worker(), Computation(b"old"), Computation(b"new")
        callers = [asyncio.create_task(cache.get(KEY, old))]
        await settle()
        await cache.invalidate([KEY])
        callers.append(asyncio.create_task(cache.get(KEY, new)))
        await settle()

        old.gate.set()
        await settle()
        callers.append(asyncio.create_task(cache.get(KEY, new)))
        await settle()
        new.gate.set()
        await settle()

        assert [answer.body for answer in await asyncio.gather(*callers)] == [b"old", b"new", b"new"]
        assert new.begun == 1


class TestEarlyRefresh:
    @pytest.fixture
    async def aged_fleet(self, fleet: Fleet) -> Fleet:
        """An entry that took 2 s to compute and has 1 s to live."""
        compute = Computation(b"old")
        caller = asyncio.create_task(fleet.worker().get(KEY, compute))
        await fleet.clock.advance(2)
        compute.gate.set()
        await caller
        fleet.clock.jump(299)
        fleet.listener.events.clear()
        return fleet

    async def test_a_hit_near_the_end_starts_one_computation_in_the_background(self, aged_fleet: Fleet):
        compute = Computation(b"new")
        workers = [aged_fleet.worker(ALWAYS_EARLY) for _ in range(3)]

        answers = [await worker.get(KEY, compute) for worker in workers for _ in range(3)]
        await settle()
        compute.gate.set()
        await settle()

        assert {(answer.body, answer.outcome) for answer in answers} == {(b"old", "hit")}
        assert compute.begun == 1
        assert await workers[0].get(KEY, compute) == Answer(b"new", "hit", 0.0)
        assert aged_fleet.listener.of(CacheRefreshed) == [CacheRefreshed(policy="summaries", early=True)]

    async def test_hits_during_a_background_computation_start_no_other(
        self, aged_fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ):
        asked, take_lease = [], aged_fleet.store.take_lease
        monkeypatch.setattr(
            aged_fleet.store, "take_lease", lambda *args: asked.append(args) or take_lease(*args)
        )
        cache, compute = aged_fleet.worker(ALWAYS_EARLY), Computation(b"new")

        for _ in range(5):
            await cache.get(KEY, compute)
            await settle()

        assert len(asked) == 1
        await cache.aclose()

    @pytest.mark.parametrize(("draw", "begun"), [(1 - math.exp(-0.49), 0), (1 - math.exp(-0.51), 1)])
    async def test_a_random_number_starts_the_refresh_by_the_formula_of_the_paper(
        self, aged_fleet: Fleet, draw: float, begun: int
    ):
        # 1 s remains of an entry that cost 2 s: due from -ln(rand) = 1 / 2 on.
        compute = computation_of(b"new")

        await aged_fleet.worker(draw).get(KEY, compute)
        await settle()

        assert compute.begun == begun

    async def test_a_background_computation_does_not_overwrite_a_newer_entry(self, aged_fleet: Fleet):
        cache, compute = aged_fleet.worker(ALWAYS_EARLY), computation_of(b"needless")
        read = cache.begin(KEY, compute)
        await aged_fleet.worker().get(KEY, computation_of(b"new"), refresh=True)

        assert (await read.result()).body == b"old"
        await settle()

        assert compute.begun == 0

    async def test_a_failure_in_the_background_sends_an_event_and_reaches_no_caller(self, aged_fleet: Fleet):
        cache, error = aged_fleet.worker(ALWAYS_EARLY), ValueError("no")

        answer = await cache.get(KEY, computation_of(error))
        await settle()

        assert answer.outcome == "hit"
        assert aged_fleet.listener.of(CacheRefreshFailed) == [
            CacheRefreshFailed(policy="summaries", error=error)
        ]
        assert await aged_fleet.store.take_lease(KEY, "next", 0, aged_fleet.options) is Lease.TAKEN, (
            "the lease is back"
        )

    async def test_an_early_refresh_does_not_inherit_the_context_of_the_request(self, aged_fleet: Fleet):
        seen = []

        async def compute() -> bytes:
            seen.append(REQUEST.get())
            return b"new"

        REQUEST.set("the one that hit")
        await aged_fleet.worker(ALWAYS_EARLY).get(KEY, compute)
        await settle()

        assert seen == ["none"]

    async def test_beta_zero_never_refreshes_early(self, clock: FakeClock, listener: RecordingListener):
        fleet, slow = Fleet(clock, listener, early_refresh_beta=0), Computation(b"old")
        caller = asyncio.create_task(fleet.worker().get(KEY, slow))
        await clock.advance(5)
        slow.gate.set()
        await caller
        clock.jump(299.9)
        compute = computation_of(b"new")

        assert (await fleet.worker(ALWAYS_EARLY).get(KEY, compute)).body == b"old"
        await settle()

        assert compute.begun == 0

    async def test_closing_cancels_an_early_refresh(self, aged_fleet: Fleet):
        cache, compute = aged_fleet.worker(ALWAYS_EARLY), Computation(b"new")
        await cache.get(KEY, compute)
        await settle()

        await cache.aclose()

        assert compute.begun == 1
        assert await aged_fleet.store.take_lease(KEY, "next", 0, aged_fleet.options) is Lease.TAKEN


class TestStaleWhileRevalidate:
    @pytest.fixture
    async def expired(self, clock: FakeClock, listener: RecordingListener) -> Fleet:
        """An entry that ran out a second ago and may be served for 59 more."""
        fleet = Fleet(clock, listener, revalidate_seconds=60, lease_seconds=100)
        await fleet.worker().get(KEY, computation_of(b"old"))
        clock.jump(301)
        listener.events.clear()
        return fleet

    async def test_an_expired_entry_answers_at_once_while_one_caller_of_all_workers_computes(
        self, expired: Fleet
    ):
        compute = Computation(b"new")
        workers = [expired.worker() for _ in range(3)]

        answers = [await worker.get(KEY, compute) for worker in workers for _ in range(3)]
        await settle()
        compute.gate.set()
        await settle()

        assert set(answers) == {Answer(b"old", "updating", 301.0)}
        assert compute.begun == 1
        assert await workers[0].get(KEY, compute) == Answer(b"new", "hit", 0.0)
        assert expired.listener.events == [
            *[CacheAnswered(policy="summaries", outcome="updating")] * 9,
            CacheRefreshed(policy="summaries", early=False),
            CacheAnswered(policy="summaries", outcome="hit"),
        ]

    async def test_after_the_stale_time_callers_wait(self, expired: Fleet):
        expired.clock.jump(59)

        assert await expired.worker().get(KEY, computation_of(b"new")) == Answer(b"new", "miss")

    async def test_later_callers_wait_for_the_computation_in_the_background(self, expired: Fleet):
        compute = Computation(b"new")
        await expired.worker().get(KEY, compute)
        await settle()
        expired.clock.jump(59)
        late = asyncio.create_task(expired.worker().get(KEY, compute))
        await settle()

        compute.gate.set()
        await expired.clock.advance(0.02)

        assert (await late).body == b"new"

    async def test_a_get_without_a_lookup_prefers_the_entry(self, expired: Fleet):
        await expired.worker().get(KEY, computation_of(b"new"), refresh=True)

        assert await expired.worker().get(KEY, computation_of(b"needless")) == Answer(b"new", "hit")

    async def test_a_refresh_waits_for_its_own_computation(self, expired: Fleet):
        cache = expired.worker()

        assert await cache.get(KEY, computation_of(b"new"), refresh=True) == Answer(b"new", "miss")

    async def test_an_invalidated_answer_is_not_served(self, expired: Fleet):
        cache = expired.worker()
        await cache.invalidate([KEY])

        assert await cache.get(KEY, computation_of(b"new")) == Answer(b"new", "miss")

    async def test_after_a_failure_an_event_is_sent_and_the_expired_entry_is_still_served(
        self, expired: Fleet
    ):
        cache, error = expired.worker(), ValueError("no")

        answers = []
        for _ in range(2):
            answers.append(await cache.get(KEY, computation_of(error)))
            await settle()

        assert answers == [Answer(b"old", "updating", 301.0)] * 2
        failed = CacheRefreshFailed(policy="summaries", error=error)
        assert expired.listener.of(CacheRefreshFailed) == [failed] * 2

    async def test_it_is_off_by_default(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(b"old", b"new")
        await cache.get(KEY, compute)
        fleet.clock.jump(301)

        assert await cache.get(KEY, compute) == Answer(b"new", "miss")


class TestNegativeCaching:
    @pytest.fixture
    def fleet(self, clock: FakeClock, listener: RecordingListener) -> Fleet:
        return Fleet(clock, listener, negative_seconds=10)

    async def fail(self, cache: ReadThroughCache, compute: Compute, message: str = "no") -> None:
        with pytest.raises(ValueError, match=message):
            await cache.get(KEY, compute)

    async def test_a_failure_is_raised_again_without_a_computation_during_its_ttl(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(ValueError("no"), b"two")
        await self.fail(cache, compute)

        fleet.clock.jump(9.999)
        await self.fail(cache, compute)
        assert compute.begun == 1

        fleet.clock.jump(0.001)
        assert await cache.get(KEY, compute) == Answer(b"two", "miss")

    async def test_the_traceback_of_a_repeated_failure_does_not_grow(self, fleet: Fleet):
        cache, compute = fleet.worker(), computation_of(ValueError("no"))
        depths = set()
        for _ in range(5):
            with pytest.raises(ValueError, match="no") as caught:
                await cache.get(KEY, compute)
            depths.add(len(caught.traceback))

        assert len(depths) <= 2, "the first and each later traceback"

    async def test_only_the_configured_errors_are_cached(self, fleet: Fleet):
        cache, compute = (
            fleet.worker(negative_on=(ConnectionError,)),
            computation_of(ValueError("no"), b"two"),
        )
        await self.fail(cache, compute)

        assert (await cache.get(KEY, compute)).body == b"two"

    async def test_a_cancelled_computation_is_not_cached_as_a_failure(self, fleet: Fleet):
        cache = fleet.worker(negative_on=(Exception,))

        async def cancelled() -> bytes:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await cache.get(KEY, cancelled)

        assert (await cache.get(KEY, computation_of(b"two"))).body == b"two"

    async def test_the_stale_answer_is_served_while_a_failure_is_cached(self, fleet: Fleet):
        cache, error = fleet.worker(), ValueError("no")
        await cache.get(KEY, computation_of(b"good"))
        fleet.clock.jump(1000)
        compute = computation_of(error)

        answers = [await cache.get(KEY, compute) for _ in range(3)]

        assert answers == [Answer(b"good", "stale", 1000.0, error)] * 3
        assert compute.begun == 1

    async def test_an_entry_that_another_worker_computed_is_a_hit(self, fleet: Fleet):
        cache = fleet.worker()
        await self.fail(cache, computation_of(ValueError("no")))
        await fleet.worker().get(KEY, computation_of(b"theirs"))

        assert await cache.get(KEY, computation_of(b"needless")) == Answer(b"theirs", "hit")

    async def test_a_successful_refresh_ends_a_cached_failure(self, fleet: Fleet):
        cache = fleet.worker()
        await self.fail(cache, computation_of(ValueError("no")))

        assert (await cache.get(KEY, computation_of(b"two"), refresh=True)).body == b"two"
        await fleet.store.invalidate([KEY])
        assert (await cache.get(KEY, computation_of(b"three"))).body == b"three"

    async def test_an_invalidation_ends_a_cached_failure(self, fleet: Fleet):
        cache = fleet.worker()
        await self.fail(cache, computation_of(ValueError("no")))
        await cache.invalidate([KEY])

        assert (await cache.get(KEY, computation_of(b"two"))).body == b"two"

    async def test_a_failure_from_before_an_invalidation_is_not_cached(self, fleet: Fleet):
        cache, old = fleet.worker(), Computation(ValueError("old"))
        before = asyncio.create_task(cache.get(KEY, old))
        await settle()

        await cache.invalidate([KEY])
        old.gate.set()

        with pytest.raises(ValueError, match="old"):
            await before
        assert (await cache.get(KEY, computation_of(b"new"))).body == b"new"

    async def test_an_invalidation_right_after_the_end_of_the_lease_counts(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ):
        cache, release = fleet.worker(), fleet.store.release

        async def overtaken(key: str, token: str) -> bool:
            is_held = await release(key, token)
            await cache.invalidate([key])
            return is_held

        monkeypatch.setattr(fleet.store, "release", overtaken)
        await self.fail(cache, computation_of(ValueError("no")))

        assert (await cache.get(KEY, computation_of(b"two"))).body == b"two"

    async def test_a_failure_of_a_background_computation_is_cached_too(
        self, clock: FakeClock, listener: RecordingListener
    ):
        fleet = Fleet(clock, listener, negative_seconds=10, revalidate_seconds=60)
        cache, compute = fleet.worker(), computation_of(ValueError("no"), b"new")
        await cache.get(KEY, computation_of(b"old"))
        clock.jump(301)

        for begun in (1, 1, 2):
            assert (await cache.get(KEY, compute)).outcome == "updating"
            await settle()
            assert compute.begun == begun
            clock.jump(5)

    async def test_the_number_of_cached_failures_is_limited(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(recent_failures, "MAX_FAILURES", 2)
        cache, compute = fleet.worker(), computation_of(ValueError("no"))
        for key in "abc":
            with pytest.raises(ValueError, match="no"):
                await cache.get(key, compute)

        for key, begun in (("b", 3), ("c", 3), ("a", 4)):
            with pytest.raises(ValueError, match="no"):
                await cache.get(key, compute)
            assert compute.begun == begun

    async def test_it_is_off_by_default(self, clock: FakeClock, listener: RecordingListener):
        cache, compute = Fleet(clock, listener).worker(), computation_of(ValueError("no"), b"two")
        await self.fail(cache, compute)

        assert (await cache.get(KEY, compute)).body == b"two"


class TestStaleIfError:
    async def test_the_stale_answer_is_served_after_a_failed_computation(self, fleet: Fleet):
        cache, error = fleet.worker(), ValueError("no")
        await cache.get(KEY, computation_of(b"good"))
        fleet.clock.jump(1000)
        compute = Computation(error)
        callers = [asyncio.create_task(cache.get(KEY, compute)) for _ in range(3)]
        await settle()
        compute.gate.set()

        assert await asyncio.gather(*callers) == [Answer(b"good", "stale", 1000.0, error)] * 3
        assert compute.begun == 1

    async def test_the_stale_answer_is_served_after_an_invalidation_too(self, fleet: Fleet):
        cache = fleet.worker()
        await cache.get(KEY, computation_of(b"good"))
        await cache.invalidate([KEY])

        assert (await cache.get(KEY, computation_of(ValueError()))).outcome == "stale"

    @pytest.mark.parametrize(("stale_seconds", "age"), [(3600, 3600), (0, 300)])
    async def test_a_stale_answer_that_is_too_old_is_not_served(
        self, clock: FakeClock, listener: RecordingListener, stale_seconds: float, age: float
    ):
        fleet = Fleet(clock, listener, stale_seconds=stale_seconds)
        cache = fleet.worker()
        await cache.get(KEY, computation_of(b"good"))
        clock.jump(age)

        with pytest.raises(ValueError, match="no"):
            await cache.get(KEY, computation_of(ValueError("no")))

    async def test_other_errors_are_raised_despite_a_stale_answer(self, fleet: Fleet):
        cache = fleet.worker(stale_on=(ConnectionError,))
        await cache.get(KEY, computation_of(b"good"))
        fleet.clock.jump(1000)

        with pytest.raises(ValueError, match="bug"):
            await cache.get(KEY, computation_of(ValueError("bug")))


async def test_a_decorated_function_answers_from_the_cache_by_its_arguments(fleet: Fleet):
    computed = []

    @fleet.worker().cached(lambda city, *, unit: f"{city}:{unit}")
    async def weather(city: str, *, unit: str) -> bytes:
        computed.append((city, unit))
        return f"12 {unit}".encode()

    answers = [await weather("Oslo", unit=unit) for unit in ("C", "C", "F")]
    assert [(answer.body, answer.outcome) for answer in answers] == [
        (b"12 C", "miss"),
        (b"12 C", "hit"),
        (b"12 F", "miss"),
    ]
    assert computed == [("Oslo", "C"), ("Oslo", "F")]
    assert weather.__name__ == "weather"


def test_a_plain_function_cannot_be_cached(fleet: Fleet):
    def plain() -> bytes:
        return b"42"

    with pytest.raises(TypeError, match="plain is a plain function"):
        fleet.worker().cached(lambda: KEY)(plain)
