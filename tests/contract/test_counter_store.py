"""The contract of every counter store: it counts each event of the last ten whole seconds once."""

import pytest

from src.services.errors import StorageUnavailableError
from src.services.overview.counter_store import (
    LIVE_SECONDS,
    WINDOW_SECONDS,
    CounterSnapshot,
    CounterStore,
    MemoryCounterStore,
)
from src.storage.fleet.counters import RedisCounterStore
from tests.contract.conftest import TEST_TIME, StoreTime


def store_on(store_time: StoreTime, worker: str = "one") -> CounterStore:
    if store_time.link is None:
        return MemoryCounterStore(store_time.clock)
    return RedisCounterStore(store_time.link, worker, time_source=TEST_TIME)


@pytest.fixture
def store(store_time: StoreTime) -> CounterStore:
    return store_on(store_time)


async def test_a_new_store_has_no_counts(store):
    reading = await store.read()
    assert (reading.counts.values, reading.counts.latencies, reading.workers) == ({}, {}, 0)
    assert reading.outage is None


async def test_counts_are_read_once_their_second_is_over(store, store_time):
    await store.add(CounterSnapshot({"requests": 3, "round_trip_us": 4_000_000_000}, {40_123: 2, 0: 1}))
    assert (await store.read()).counts["requests"] == 0
    await store_time.advance(1)
    counts = (await store.read()).counts
    assert counts.values == {"requests": 3, "round_trip_us": 4_000_000_000}
    assert counts.latencies == {40_123: 2, 0: 1}


async def test_snapshots_of_one_and_several_seconds_are_added(store, store_time):
    for _ in range(5):
        await store.add(CounterSnapshot({"points": 10}, {7: 1}))
        await store_time.advance(0.5)
    await store_time.advance(1)
    counts = (await store.read()).counts
    assert (counts.values, counts.latencies) == ({"points": 50}, {7: 5})


async def test_a_snapshot_counts_in_a_window_of_whole_seconds(store, store_time):
    await store_time.advance(0.75)
    await store.add(CounterSnapshot({"requests": 1}))
    await store_time.advance(0.25)
    seen = []
    for _ in range(WINDOW_SECONDS + 2):
        seen.append((await store.read()).counts["requests"])
        await store_time.advance(1)
    assert seen == [1] * WINDOW_SECONDS + [0, 0]


async def test_a_worker_counts_as_alive_while_it_sends_snapshots(store, store_time):
    await store.add(CounterSnapshot())
    assert (await store.read()).workers == 1
    await store_time.advance(LIVE_SECONDS - 0.1)
    assert (await store.read()).workers == 1
    await store_time.advance(0.1)
    assert (await store.read()).workers == 0
    await store.add(CounterSnapshot())
    assert (await store.read()).workers == 1


async def test_reading_does_not_change_the_counts(store, store_time):
    await store.add(CounterSnapshot({"requests": 1}))
    await store_time.advance(1)
    assert [(await store.read()).counts["requests"] for _ in range(3)] == [1, 1, 1]


async def test_after_a_clock_set_back_a_dead_worker_is_not_counted(store, store_time):
    """In the past, a dead worker was counted until the clock reached its former time."""
    await store.add(CounterSnapshot())
    await store_time.shift(-3600)
    await store_time.advance(LIVE_SECONDS)
    assert (await store.read()).workers == 0
    await store.add(CounterSnapshot())
    assert (await store.read()).workers == 1
    await store_time.advance(3600 - LIVE_SECONDS)
    assert (await store.read()).workers == 0, "the dead worker is not counted again"


# ---------------------------------------------------------------- only in Redis


on_redis = pytest.mark.parametrize("backend", ["fakeredis", "redis"])


@on_redis
async def test_all_workers_are_counted_together(store, store_time):
    other = store_on(store_time, "other")
    await store.add(CounterSnapshot({"requests": 1, "hits": 1}, {7: 1}))
    await other.add(CounterSnapshot({"requests": 2}, {7: 1, 8: 1}))
    await store_time.advance(1)
    for each in (store, other):
        reading = await each.read()
        assert reading.counts.values == {"requests": 3, "hits": 1}
        assert reading.counts.latencies == {7: 2, 8: 1}
        assert reading.workers == 2
    await store_time.advance(1)
    await other.add(CounterSnapshot())
    await store_time.advance(1)
    assert (await store.read()).workers == 1


@on_redis
async def test_seconds_are_those_of_the_servers_clock(store_time):
    store = RedisCounterStore(store_time.link, "one")  # on the real clock, so the test checks the keys
    await store.add(CounterSnapshot({"requests": 1}))
    seconds, _ = await store_time.link.send("TIME")
    names = {key.decode() for key in await store_time.link.send("KEYS", "counters:*")}
    assert len(names) == 2
    (made,) = names - {"counters:{fleet}:workers"}
    assert 0 <= int(seconds) - int(made.removeprefix("counters:{fleet}:")) <= 1


@on_redis
async def test_all_keys_expire(store, store_time):
    for _ in range(3):
        await store.add(CounterSnapshot({"requests": 1}))
        await store_time.advance(1)
    keys = await store_time.link.send("KEYS", "counters:*")
    lives = [await store_time.link.send("TTL", key) for key in keys]
    assert len(keys) == 4  # three seconds, and the number of workers
    assert all(WINDOW_SECONDS < life <= 120 for life in lives)


@on_redis
async def test_an_empty_snapshot_writes_no_second(store, store_time):
    await store.add(CounterSnapshot())
    assert await store_time.link.send("KEYS", "counters:*") == [b"counters:{fleet}:workers"]


@on_redis
async def test_dead_workers_are_removed(store, store_time):
    for number in range(20):
        await store_on(store_time, f"worker-{number}").add(CounterSnapshot())
        await store_time.advance(1)
    assert await store_time.link.send("ZCARD", "counters:{fleet}:workers") == LIVE_SECONDS


@on_redis
@pytest.mark.parametrize("act", ["add", "read"])
async def test_a_value_of_another_program_under_the_key_is_unavailable(store, store_time, act):
    await store_time.link.send("SET", "counters:{fleet}:workers", "mine")
    with pytest.raises(StorageUnavailableError):
        await (store.add(CounterSnapshot({"requests": 1})) if act == "add" else store.read())


@on_redis
@pytest.mark.parametrize("act", ["add", "read"])
async def test_each_takes_one_round_trip(store, store_time, act):
    await store.add(CounterSnapshot())
    await store.read()
    before = store_time.link.round_trips
    await (store.add(CounterSnapshot({"requests": 1}, {7: 1})) if act == "add" else store.read())
    assert store_time.link.round_trips - before == 1
