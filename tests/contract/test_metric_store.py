"""The contract of every metric store: nothing lost, nothing twice, exact to the microsecond."""

import asyncio
import math
import random
import struct
import threading
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from src.analytics.columns import columns_of
from src.analytics.points import Point, labels_text
from src.analytics.window import Window
from src.resilience.clock import SystemClock
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.services.metrics.ingest import Idempotency, IdempotencyKeyReusedError, MetricStore, Position
from src.storage.metrics.layout import SKETCH_HEADER
from src.storage.metrics.readers import list_reader
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.contract.conftest import TEST_TIME, StoreTime
from tests.support.clock import FakeClock
from tests.support.examples import examples
from tests.support.metric_model import MemoryMetricStore

NOW = 1_800_000_000_000_000
SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
WRITE = Idempotency("key", "fingerprint")


def store_on(store_time: StoreTime, **options) -> MetricStore:
    if store_time.link is None:
        return MemoryMetricStore(store_time.clock)
    return RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME, **options)


@pytest.fixture
def store(store_time: StoreTime) -> MetricStore:
    return store_on(store_time)


def points(*pairs: tuple[int, float], of: str = "cpu") -> list[Point]:
    return [Point(of, timestamp, value) for timestamp, value in pairs]


def seen(listed) -> list[tuple[int, float]]:
    return [(stored.point.timestamp_us, stored.point.value) for stored in listed]


def place(stored) -> Position:
    return Position(stored.point.timestamp_us, stored.point.type, stored.arrival)


async def walk(store, metric_type, limit, between=None) -> list:
    """List page by page to the end, and do `between` after each page."""
    walked, before = [], None
    while page := await store.newest(metric_type, limit, before):
        walked += page
        before = place(page[-1])
        if between is not None:
            await between()
    return walked


async def add(store, some, idempotency=None) -> bool:
    result = await store.add(columns_of(some), idempotency)
    assert result.rejected == []
    return result.is_new


async def summary(store, window=None, metric_type="cpu"):
    rollup = (await store.aggregate(metric_type, window)).rollup
    return rollup.count, rollup.total, rollup.minimum, rollup.maximum, rollup.latest_value


# ---------------------------------------------------------------- summaries


async def test_of_an_unknown_type_there_is_nothing(store):
    for window in (None, Window.rolling(NOW, 3600)):
        aggregate = await store.aggregate("nothing", window)
        assert aggregate.rollup.count == 0
        assert aggregate.rollup.average is None
        assert aggregate.sketch.quantile(0.5) is None
    assert await store.newest("nothing", 10) == []
    assert await store.newest(None, 10) == []
    assert await store.types() == []


async def test_a_stored_point_is_in_every_summary_at_once(store):
    assert await add(store, points((NOW, 1.5)))
    for window in (None, Window.rolling(NOW, 3600), Window.rolling(NOW, 86400)):
        assert await summary(store, window) == (1, 1.5, 1.5, 1.5, 1.5)
        assert (await store.aggregate("cpu", window)).sketch.quantile(0.99) == 1.5


@pytest.mark.parametrize("now", [NOW, NOW + 1, NOW + 59_999_999, NOW - NOW % HOUR, NOW - NOW % DAY + DAY - 1])
@pytest.mark.parametrize("seconds", [3600, 86400, 1, 60])
async def test_a_rolling_window_is_exact_to_the_microsecond(store, now, seconds):
    start = now - seconds * SECOND
    await add(store, points((start, 1.0), (start + 1, 2.0), (now, 4.0), (now + 1, 8.0)))
    assert await summary(store, Window.rolling(now, seconds)) == (2, 6.0, 2.0, 4.0, 4.0)
    assert (await store.aggregate("cpu", Window.rolling(now, seconds))).sketch.count == 2


async def test_without_points_of_the_future_the_far_edge_is_as_exact(store):
    start = NOW - HOUR
    await add(store, points((start, 1.0), (start + 1, 2.0), (NOW, 4.0)))
    assert await summary(store, Window.rolling(NOW, 3600)) == (2, 6.0, 2.0, 4.0, 4.0)


async def test_points_of_the_future_count_in_all_and_later_in_windows(store):
    await add(store, points((NOW + 10 * MINUTE, 7.0), (NOW, 1.0)))
    assert await summary(store) == (2, 8.0, 1.0, 7.0, 7.0)
    assert await summary(store, Window.rolling(NOW, 3600)) == (1, 1.0, 1.0, 1.0, 1.0)
    assert (await summary(store, Window.rolling(NOW + 10 * MINUTE, 3600)))[0] == 2


async def test_a_late_point_goes_to_its_own_time_and_is_not_the_latest(store):
    await add(store, points((NOW, 1.0)))
    await add(store, points((NOW - 2 * HOUR, 9.0)))
    assert await summary(store) == (2, 10.0, 1.0, 9.0, 1.0)
    assert await summary(store, Window.rolling(NOW, 3600)) == (1, 1.0, 1.0, 1.0, 1.0)
    assert (await store.types())[0].latest_value == 1.0


async def test_of_equal_timestamps_the_later_arrival_is_the_latest(store):
    await add(store, points((NOW, 1.0), (NOW, 2.0)))
    assert (await summary(store))[-1] == 2.0
    await add(store, points((NOW, 3.0)))
    assert (await summary(store))[-1] == 3.0
    assert (await summary(store, Window.rolling(NOW, 60)))[-1] == 3.0


async def test_ten_thousand_times_a_tenth_averages_to_a_tenth(store):
    await add(store, points(*((NOW - n * SECOND, 0.1) for n in range(5000))))
    for n in range(50):
        await add(store, points(*((NOW - n * SECOND, 0.1) for _ in range(100))))
    rollup = (await store.aggregate("cpu", None)).rollup
    assert (rollup.count, rollup.average) == (10_000, 0.1)


async def test_extreme_values_break_nothing(store):
    values = [1.7e308, 1.7e308, -1.7e308, 5e-324, -0.0, 2.0**53 + 2, -1e-310]
    for value in values:
        await add(store, points((NOW, value)))
    for window in (None, Window.rolling(NOW, 3600)):
        aggregate = await store.aggregate("cpu", window)
        rollup = aggregate.rollup
        assert rollup.total is None
        assert rollup.average is None
        assert (rollup.count, rollup.minimum, rollup.maximum) == (7, -1.7e308, 1.7e308)
        assert rollup.latest_value == -1e-310
        assert aggregate.sketch.quantile(1.0) == pytest.approx(1.7e308, rel=0.01)
    listed = [value for _, value in seen(await store.newest("cpu", 10))]
    assert struct.pack("7d", *listed) == struct.pack("7d", *reversed(values))


@pytest.mark.parametrize("first", [-62_135_596_800_000_000, 253_402_300_799_999_998, -1])
async def test_every_year_is_exact(store, first):
    await add(store, points((first + 1, 2.0)))
    await add(store, points((first, 1.0)))
    rollup = (await store.aggregate("cpu", None)).rollup
    assert (rollup.latest_us, rollup.latest_value) == (first + 1, 2.0)
    assert seen(await store.newest("cpu", 10)) == [(first + 1, 2.0), (first, 1.0)]
    assert await summary(store, Window(first - 1, first)) == (1, 1.0, 1.0, 1.0, 1.0)


async def test_a_batch_of_many_types_keeps_them_apart(store):
    batch = [Point(f"type-{n % 50}", NOW - n * SECOND, float(n)) for n in range(500)]
    await add(store, batch)
    for n in range(50):
        mine = [point.value for point in batch if point.type == f"type-{n}"]
        count, total, low, high, latest = await summary(store, None, f"type-{n}")
        assert (count, total, low, high, latest) == (10, sum(mine), min(mine), max(mine), n)


async def test_a_batch_of_ten_thousand_is_stored_whole(store):
    draw = random.Random(7)
    values = [draw.lognormvariate(0, 2) for _ in range(10_000)]
    await add(store, points(*((NOW - n * 5000, value) for n, value in enumerate(values))))
    aggregate = await store.aggregate("cpu", Window.rolling(NOW, 3600))
    assert aggregate.rollup.count == 10_000
    assert aggregate.rollup.total == pytest.approx(math.fsum(values), rel=1e-15)
    for percent in (50, 95, 99):
        exact = sorted(values)[percent * 100 - 1]
        assert aggregate.sketch.quantile(percent / 100) == pytest.approx(exact, rel=0.01)
    assert len(await store.newest("cpu", 10_001)) == 10_000


async def test_a_batch_of_a_point_on_each_of_thousands_of_days_is_stored_whole(store):
    await store.add(columns_of(points(*((day * DAY, 1.0) for day in range(4_500)))))

    assert (await store.aggregate("cpu", None)).rollup.count == 4_500
    last_days = Window(start_us=4_399 * DAY, end_us=4_499 * DAY)
    assert (await store.aggregate("cpu", last_days)).rollup.count == 100


async def test_percentiles_are_those_of_all_batches(store):
    values = [1.03**n for n in range(10)]
    for times in (250, 300, 1):
        await add(store, points(*((NOW - n, value) for n, value in enumerate(values * times))))
    for window in (None, Window.rolling(NOW, 3600), Window.rolling(NOW + 30 * MINUTE, 3600)):
        sketch = (await store.aggregate("cpu", window)).sketch
        assert sketch.count == 5510
        assert [sketch.quantile((n + 1) / 10) for n in range(10)] == pytest.approx(values, rel=0.01)


# ---------------------------------------------------------------- idempotency


async def test_the_same_write_again_stores_nothing(store):
    assert await add(store, points((NOW, 1.0)), WRITE)
    assert not await add(store, points((NOW, 1.0)), WRITE)
    assert await summary(store) == (1, 1.0, 1.0, 1.0, 1.0)


async def test_a_key_reused_for_another_write_is_refused_and_stores_nothing(store):
    await add(store, points((NOW, 1.0)), WRITE)
    with pytest.raises(IdempotencyKeyReusedError):
        await add(store, points((NOW, 2.0), of="mem"), Idempotency("key", "another"))
    assert [overview.type for overview in await store.types()] == ["cpu"]
    assert not await add(store, points((NOW, 1.0)), WRITE), "the first write is still the key's"


async def test_other_keys_are_other_writes(store):
    await add(store, points((NOW, 1.0)), WRITE)
    assert await add(store, points((NOW, 1.0)), Idempotency("Key", "fingerprint"))
    assert await add(store, points((NOW, 1.0)))
    assert (await summary(store))[0] == 3


async def test_of_concurrent_writers_with_one_key_one_stores(store):
    stored = await asyncio.gather(*(add(store, points((NOW, 1.0)), WRITE) for _ in range(20)))
    assert sorted(stored) == [False] * 19 + [True]
    assert (await summary(store))[0] == 1


async def test_a_key_is_forgotten_after_a_day(store, store_time):
    await add(store, points((NOW, 1.0)), WRITE)
    await store_time.advance(24 * 3600 - 1)
    assert not await add(store, points((NOW, 1.0)), WRITE)
    await store_time.advance(1)
    assert await add(store, points((NOW, 1.0)), Idempotency("key", "another"))


async def test_a_clock_set_back_keeps_a_key_no_longer_than_a_day(store, store_time):
    """After the clock was set back by a year, the key was refused to any other request for a year."""
    await add(store, points((NOW, 1.0)), WRITE)
    await store_time.shift(-365 * 24 * 3600)
    assert not await add(store, points((NOW, 1.0)), WRITE)
    await store_time.advance(24 * 3600)
    assert await add(store, points((NOW, 1.0)), Idempotency("key", "another"))


# ---------------------------------------------------------------- lists


async def test_a_list_is_newest_first_and_limited(store):
    await add(store, points((NOW - DAY, 1.0), (NOW, 3.0), (NOW - HOUR, 2.0)))
    assert seen(await store.newest("cpu", 10)) == [(NOW, 3.0), (NOW - HOUR, 2.0), (NOW - DAY, 1.0)]
    assert seen(await store.newest("cpu", 2)) == [(NOW, 3.0), (NOW - HOUR, 2.0)]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
async def test_walking_visits_each_point_once(store, limit):
    stamps = [NOW, NOW, NOW, NOW - 1, NOW - HOUR, NOW - HOUR, NOW - DAY, NOW - 300 * DAY]
    for n, stamp in enumerate(stamps):
        await add(store, points((stamp, float(n))))
    assert [value for _, value in seen(await walk(store, "cpu", limit))] == [2, 1, 0, 3, 5, 4, 6, 7]


async def test_walking_through_thousands_of_equal_timestamps(store):
    await add(store, points(*((NOW, float(n)) for n in range(2500))))
    walked = await walk(store, "cpu", 400)
    assert [value for _, value in seen(walked)] == [float(n) for n in reversed(range(2500))]


async def test_walking_many_sparse_hours(store):
    await add(store, points(*((NOW - n * 5 * HOUR, float(n)) for n in range(350))))
    assert [value for _, value in seen(await walk(store, "cpu", 130))] == [float(n) for n in range(350)]


@pytest.mark.parametrize("limit", [1, 3, 10, 1000])
async def test_without_a_type_the_newest_of_all_are_listed(store, limit):
    batch = [
        Point(name, stamp, value)
        for value, (name, stamp) in enumerate(
            (name, NOW - back) for name in ("b", "a", "c") for back in (0, 0, 1, HOUR, DAY)
        )
    ]
    await add(store, batch)
    order = sorted(range(len(batch)), key=lambda n: (batch[n].timestamp_us, batch[n].type, n), reverse=True)
    walked = await walk(store, None, limit)
    assert [stored.point for stored in walked] == [batch[n] for n in order]


async def test_one_busy_type_among_quiet_ones_is_listed_in_full(store):
    await add(store, [Point("busy", NOW - n, float(n)) for n in range(500)])
    await add(store, [Point(f"quiet-{n}", NOW - DAY - n, -float(n)) for n in range(10)])
    listed = await store.newest(None, 505)
    assert [stored.point.value for stored in listed] == [
        *(float(n) for n in range(500)),
        *(-float(n) for n in range(5)),
    ]


@pytest.mark.parametrize("metric_type", ["a", None])
async def test_writes_meanwhile_make_a_walk_neither_repeat_nor_skip(store, metric_type):
    first = [Point(name, NOW - n // 2, float(n)) for n in range(40) for name in ("a", "b")]
    await add(store, first)

    async def write():
        await add(store, [Point(name, NOW + 5, 100.0) for name in ("a", "b", "new")])
        await add(store, [Point(name, NOW, 100.0) for name in ("a", "b")])

    walked = [stored.point for stored in await walk(store, metric_type, 7, write)]
    mine = [point for point in first if metric_type in {None, point.type}]
    assert sorted(walked, key=repr) == sorted(mine, key=repr)


@pytest.mark.parametrize("limit", [17, 40])
async def test_a_walk_over_more_types_than_are_read_at_once_visits_each_point_once(store, limit):
    draw = random.Random(5)
    batch = [
        Point(f"type-{draw.randrange(250)}", NOW - draw.choice([n, n % 7, n * HOUR]), float(n))
        for n in range(400)
    ]
    await add(store, batch)
    arrivals, order = Counter(), []
    for point in batch:
        arrivals[point.type] += 1
        order.append((point.timestamp_us, point.type, arrivals[point.type], point.value))

    async def write():  # every type becomes the latest in its turn
        await add(store, [Point(f"type-{draw.randrange(250)}", NOW + 5 + n, 0.0) for n in range(20)])

    walked = [stored.point.value for stored in await walk(store, None, limit, write)]
    assert walked == [value for *_, value in sorted(order, reverse=True)]


async def test_types_are_listed_latest_first_then_by_name(store):
    await add(store, [Point("b", NOW, 1.0), Point("a", NOW, 2.0), Point("c", NOW + 1, 3.0)])
    await add(store, [Point("b", NOW - DAY, 4.0)])
    assert [(o.type, o.count, o.latest_timestamp_us, o.latest_value) for o in await store.types()] == [
        ("c", 1, NOW + 1, 3.0),
        ("a", 1, NOW, 2.0),
        ("b", 2, NOW, 1.0),
    ]


# ---------------------------------------------------------------- against the model

INSTANTS = st.one_of(
    st.integers(NOW - 25 * HOUR, NOW + 10 * MINUTE),
    st.sampled_from([NOW, NOW - HOUR, NOW - DAY]).flatmap(lambda t: st.integers(t - 2, t + 2)),
    st.integers(0, 26 * 60).flatmap(lambda n: st.integers(-1, 1).map(lambda d: NOW - n * MINUTE + d)),
)
VALUES = st.integers(-(2**40), 2**40).map(lambda n: n / 8)  # so that sums are exact in any order
BATCHES = st.lists(st.lists(st.tuples(st.sampled_from("ab"), INSTANTS, VALUES), max_size=12), max_size=5)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BATCHES, st.integers(NOW - 10 * MINUTE, NOW), st.sampled_from([1, 60, 3600, 86400]))
async def test_it_says_what_the_model_says(backend, store_time, batches, now, seconds):
    if store_time.link is not None:
        await store_time.link.send("FLUSHALL")
        await store_time.publish()
    store, model = store_on(store_time), MemoryMetricStore(store_time.clock)
    for batch in batches:
        stored = [Point(name, instant, value) for name, instant, value in batch]
        await add(store, stored)
        await add(model, stored)
    for window in (None, Window.rolling(now, seconds)):
        for name in "ab":
            ours, theirs = await store.aggregate(name, window), await model.aggregate(name, window)
            assert await summary(store, window, name) == await summary(model, window, name)
            assert ours.rollup.latest_us == theirs.rollup.latest_us
            assert ours.sketch.count == theirs.rollup.count
            for q in (0.5, 0.95, 0.99):
                assert ours.sketch.quantile(q) == theirs.sketch.quantile(q)
    assert seen(await walk(store, None, 5)) == seen(await walk(model, None, 5))
    assert await store.types() == await model.types()


# ---------------------------------------------------------------- what only Redis has


on_redis = pytest.mark.parametrize("backend", ["fakeredis", "redis"])


@on_redis
async def test_a_flushed_script_is_taught_again(store, store_time):
    await add(store, points((NOW, 1.0)))
    await store_time.link.send("SCRIPT", "FLUSH")
    await add(store, points((NOW, 2.0)))
    await store_time.link.send("SCRIPT", "FLUSH")
    assert len(await store.newest("cpu", 10)) == 2


@on_redis
async def test_every_key_of_a_type_carries_its_tag(store, store_time):
    await add(store, points((NOW, 1.0)), WRITE)
    keys = {key.decode() for key in await store_time.link.send("KEYS", "*")}
    others = {key for key in keys if not key.startswith("m:{cpu}:")}
    assert {key.partition(":")[0] for key in others} == {"types", "idem", "test"}


@pytest.fixture
def sent_at_once(store_time: StoreTime, monkeypatch) -> list[int]:
    """How many commands each round trip took along."""
    sizes: list[int] = []
    monkeypatch.setattr(store_time.link._batcher, "_observe", lambda commands, _: sizes.append(commands))
    return sizes


@on_redis
async def test_a_list_over_all_types_reads_few_of_many_and_few_at_once(store, sent_at_once):
    await add(store, [Point(f"type-{n}", NOW - n, float(n)) for n in range(1000)])
    await store.newest(None, 1)  # teaches the server the script
    sent_at_once.clear()
    assert seen(await store.newest(None, 5)) == [(NOW - n, float(n)) for n in range(5)]
    assert sum(sent_at_once) <= 15
    sent_at_once.clear()
    listed = await store.newest(None, 5, Position(NOW - 500, "type-500", 0))
    assert seen(listed) == [(NOW - n, float(n)) for n in range(501, 506)]
    assert sum(sent_at_once) <= 520  # 501 types have a point as new or newer
    assert max(sent_at_once) <= 100


@on_redis
@pytest.mark.parametrize(("count", "is_long"), [(100, False), (9_000, True)])
async def test_a_list_of_a_dense_minute_is_sorted_outside_the_event_loop(store, monkeypatch, count, is_long):
    """A million points in a minute held the event loop for a quarter of a second."""
    await add(store, points(*((NOW + n, float(n)) for n in range(count))))
    sort, threads = list_reader._newest, []

    def sorted_by(*arguments):
        threads.append(threading.current_thread())
        return sort(*arguments)

    monkeypatch.setattr(list_reader, "_newest", sorted_by)
    assert seen(await store.newest("cpu", 2)) == [(NOW + n, float(n)) for n in (count - 1, count - 2)]
    assert (threads[0] is not threading.main_thread()) == is_long


@on_redis
async def test_of_many_types_the_records_are_read_some_hundred_at_once(store, sent_at_once):
    await add(store, [Point(f"type-{n}", NOW - n, float(n)) for n in range(1200)])
    sent_at_once.clear()
    assert [overview.type for overview in await store.types()] == [f"type-{n}" for n in range(1200)]
    assert sent_at_once == [1, 500, 500, 500, 500, 400]


@on_redis
async def test_only_the_sketches_of_minutes_expire(store, store_time):
    await add(store, points(*((NOW + n, float(n)) for n in range(2_000))))
    await add(store, points((NOW + HOUR, 1.0)))
    keys = {key.decode() for key in await store_time.link.send("KEYS", "m:*")}
    assert keys == {
        f"m:{{cpu}}:{suffix}"
        for suffix in (
            "d", "h:20833", "hours", "n:500000", "p:all", "p:d:20833", "p:h:500000", "p:m:30000000",
            "r:500000:0", "r:500001",
        )
    }  # fmt: skip
    lives = {key: await store_time.link.send("TTL", key) for key in keys}
    assert lives.pop("m:{cpu}:p:m:30000000") == pytest.approx(26 * 3600 + 60, abs=30)
    assert set(lives.values()) == {-1}


@on_redis
async def test_the_sketch_of_an_hour_that_comes_at_once_is_compacted(store, store_time):
    times = range(NOW - NOW % HOUR, NOW - NOW % HOUR + HOUR, MINUTE)
    await add(store, points(*((time + n, 2.0**n) for time in times for n in range(20))))
    async with asyncio.timeout(10):
        while await store_time.link.send("STRLEN", "m:{cpu}:p:h:500000") > SKETCH_HEADER.size + 4 * 20:
            await asyncio.sleep(0.001)
    assert (await store.aggregate("cpu", Window.rolling(times.stop - 1, 3600))).sketch.count == 20 * 60


# ---------------------------------------------------------------- all or nothing


async def stored_or_refused(store, keyed: Idempotency | None = WRITE) -> bool:
    """Write a point that Redis may refuse; return whether it is stored. What it says must be true."""
    try:
        stored = await add(store, points((NOW, 1.5)), keyed)
    except (StorageUnavailableError, ResponseError):
        return False
    assert stored, "it says that an earlier write stored the point, and that one was refused"
    return True


async def assert_all_of_one_point(store):
    for window in (None, Window.rolling(NOW, 3600), Window.rolling(NOW, 86400)):
        assert await summary(store, window) == (1, 1.5, 1.5, 1.5, 1.5)
        assert (await store.aggregate("cpu", window)).sketch.count == 1
    assert seen(await store.newest("cpu", 10)) == [(NOW, 1.5)]
    assert seen(await store.newest(None, 10)) == [(NOW, 1.5)]
    assert [overview.count for overview in await store.types()] == [1]


async def assert_nothing(store):
    for window in (None, Window.rolling(NOW, 3600), Window.rolling(NOW, 86400)):
        aggregate = await store.aggregate("cpu", window)
        assert (aggregate.rollup.count, aggregate.sketch.count) == (0, 0)
    assert await store.newest("cpu", 10) == []
    assert await store.newest(None, 10) == []
    assert await store.types() == []


@on_redis
@pytest.mark.parametrize("keyed", [WRITE, None])
async def test_a_foreign_value_at_any_key_stores_all_or_nothing_and_is_told_truly(store, store_time, keyed):
    """Some was stored, and the same request again was answered as stored, though nothing was listed."""
    link = store_time.link
    await add(store, points((NOW, 1.5)), keyed)
    kinds = {key: await link.send("TYPE", key) for key in await link.send("KEYS", "*")}
    for key, kind in kinds.items():
        if key == b"test:now_us":
            continue
        await link.send("FLUSHALL")
        await store_time.publish()
        await link.send(*(("RPUSH", key, "foreign") if kind == b"string" else ("SET", key, "foreign")))
        if not await stored_or_refused(store, keyed):
            assert not await stored_or_refused(store, keyed), key
            await link.send("DEL", key)
            await assert_nothing(store)
            assert await stored_or_refused(store, keyed), key
        else:
            await link.send("DEL", key)
        await assert_all_of_one_point(store)


@on_redis
@pytest.mark.parametrize("keyed", [WRITE, None])
async def test_a_foreign_value_in_any_hash_stores_all_or_nothing(store, store_time, keyed):
    link = store_time.link
    await add(store, points((NOW - 1, 0.5)))
    hashes = [key for key in await link.send("KEYS", "m:*") if await link.send("TYPE", key) == b"hash"]
    for key in hashes:
        await link.send("FLUSHALL")
        await store_time.publish()
        await add(store, points((NOW - 1, 0.5)))
        for field in await link.send("HKEYS", key):
            await link.send("HSET", key, field, "foreign")
        expected = [(NOW - 1, 0.5)]
        if await stored_or_refused(store, keyed):
            expected.insert(0, (NOW, 1.5))
        else:
            assert not await stored_or_refused(store, keyed), key
        assert seen(await store.newest("cpu", 10)) == expected, key


@on_redis
@pytest.mark.parametrize("key", ["d", "hours", "r:500000"])
async def test_a_type_with_a_foreign_value_is_left_out_of_what_is_read_of_all(store, store_time, key, caplog):
    """`/api/metrics/types` was an error for all types."""
    await add(store, [Point(name, NOW + n, float(n)) for n, name in enumerate(("a", "broken", "b"))])
    await store_time.link.send("SET", f"m:{{broken}}:{key}", "foreign")
    others = [("b", 1), ("broken", 1), ("a", 1)] if key != "d" else [("b", 1), ("a", 1)]
    assert [(overview.type, overview.count) for overview in await store.types()] == others
    listed = [stored.point.type for stored in await store.newest(None, 10)]
    assert listed == ["b", "a"]
    assert {record.type for record in caplog.records} == {"broken"}


@on_redis
@pytest.mark.parametrize("record", ["foreign", "x" * 57])
async def test_a_type_with_a_rollup_that_is_none_is_left_out_of_the_types(store, store_time, record, caplog):
    await add(store, [Point(name, NOW, 1.0) for name in ("a", "broken", "b")])
    await store_time.link.send("HSET", "m:{broken}:d", "all", record)
    assert [overview.type for overview in await store.types()] == ["a", "b"]
    assert [record.type for record in caplog.records] == ["broken"]


@on_redis
async def test_a_foreign_value_under_one_type_is_no_other_types_trouble(store, store_time):
    """What came in the same tick was refused with it."""
    await store_time.link.send("SET", "m:{broken}:d", "foreign")
    names = ["a", "broken", "b", "a", "broken"]
    written = (add(store, points((NOW + n, float(n)), of=name)) for n, name in enumerate(names))
    replies = await asyncio.gather(*written, return_exceptions=True)
    assert [reply is True for reply in replies] == [name != "broken" for name in names]
    assert seen(await store.newest("a", 10)) == [(NOW + 3, 3.0), (NOW, 0.0)]
    assert seen(await store.newest("b", 10)) == [(NOW + 2, 2.0)]


@pytest.fixture
async def restricted(own_redis):
    """A store whose user the test restricts, by `ACL SETUSER`, while the store is connected."""
    with own_redis.connect() as client:
        client.acl_setuser("api", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        link = RedisLink(
            connect(RedisAddress(own_redis.url.replace("unix://", "unix://api:any@"))), SystemClock()
        )
        clock = FakeClock(NOW / SECOND)
        store = RedisMetricStore(link, clock, time_source="local function now_us() return 1.8e15 end")

        def restrict(*rules):
            client.execute_command("ACL", "SETUSER", "api", *rules)

        yield store, restrict, client
        await link.aclose()


@pytest.mark.parametrize("keyed", [WRITE, None])
async def test_a_user_without_any_command_of_a_write_stores_all_or_nothing_and_is_told_truly(
    restricted, keyed
):
    """First 503, then 201 with `Idempotency-Replayed: true`, and nothing was listed."""
    store, restrict, client = restricted
    client.config_resetstat()
    await add(store, points((NOW, 1.5)), keyed)
    commands = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    commands -= {"evalsha", "eval", "info", "acl|setuser", "config|resetstat"}
    assert {"hmget", "hset", "zadd", "setrange"} <= commands
    for command in sorted(commands):
        client.flushdb()
        restrict(f"-{command}")
        is_stored = await stored_or_refused(store, keyed)
        assert is_stored or not await stored_or_refused(store, keyed), command
        restrict(f"+{command}")
        if not is_stored:
            await assert_nothing(store)
            assert await stored_or_refused(store, keyed), command
        await assert_all_of_one_point(store)


@pytest.mark.parametrize("had_labels", [False, True])
async def test_a_user_without_any_command_of_a_labelled_write_stores_all_or_nothing(restricted, had_labels):
    """The hours that no block of series has yet were looked for after something was written."""
    store, restrict, client = restricted
    earlier = [Point("cpu", NOW - 2 * 3600 * SECOND, 0.5, labels_text({"host": "a"} if had_labels else {}))]
    labelled = [Point("cpu", NOW, 1.5, labels_text({"host": "a"}))]
    await add(store, earlier)
    client.config_resetstat()
    await add(store, labelled)
    commands = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    commands -= {"evalsha", "eval", "info", "acl|setuser", "config|resetstat"}
    assert {"hget", "hset", "hrandfield" if had_labels else "zrange"} <= commands
    for command in sorted(commands):
        client.flushdb()
        await add(store, earlier)
        restrict(f"-{command}")
        (reply,) = await asyncio.gather(add(store, labelled), return_exceptions=True)
        restrict(f"+{command}")
        assert "not known" not in str(reply), command
        stored = 2 if reply is True else 1
        assert len(await store.newest("cpu", 10)) == (await summary(store, None))[0] == stored, command


@on_redis
@pytest.mark.parametrize(("had_labels", "key"), [(False, "hours"), (False, "u"), (True, "u")])
async def test_a_foreign_value_at_a_key_of_labels_stores_all_or_nothing(store, store_time, had_labels, key):
    link = store_time.link
    earlier = [Point("cpu", NOW - 2 * 3600 * SECOND, 0.5, labels_text({"host": "a"} if had_labels else {}))]
    await add(store, earlier)
    before = seen(await store.newest("cpu", 10))
    rollup = await summary(store, None)
    if key == "hours":
        await link.send("ZADD", "m:{cpu}:hours", 1, "foreign")
    elif had_labels:
        await link.send("HSET", "m:{cpu}:u", "foreign", 1)
    else:
        await link.send("SET", "m:{cpu}:u", "foreign")
    with pytest.raises((StorageUnavailableError, ResponseError)) as refusal:
        await add(store, [Point("cpu", NOW, 1.5, labels_text({"host": "b"}))])
    assert "not known" not in str(refusal.value)
    assert await summary(store, None) == rollup
    if key != "hours":
        assert seen(await store.newest("cpu", 10)) == before


async def test_a_refusal_in_mid_write_leaves_unknown_what_is_stored(restricted, caplog):
    """No check can foresee this one: of a type's keys all but one sort may be written."""
    store, restrict, client = restricted
    if int(client.info("server")["redis_version"].partition(".")[0]) < 7:
        pytest.skip("Redis 6.2 does not tell reading from writing a key")
    restrict("resetkeys", "%R~*", "~types", "~idem:*", "~m:{cpu}:[^r]*")  # all but m:{cpu}:r:<hour>
    for _ in range(2):
        with pytest.raises(StorageUnavailableError, match="not known") as told:
            await add(store, points((NOW, 1.5)), WRITE)
        assert not isinstance(told.value, StorageRefusedError)
    assert "metric_write_unfinished" in [record.getMessage() for record in caplog.records]
