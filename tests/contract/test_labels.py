"""The contract of summaries by labels: the model's, whatever is folded already and whatever is not."""

import asyncio
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.analytics.columns import columns_of
from src.analytics.points import Point, labels_text
from src.analytics.window import Window
from src.services.metrics.labels import LabelQuery
from src.storage.metrics.series import series_folder
from src.storage.metrics.store import Caps, RedisMetricStore
from tests.contract.conftest import TEST_TIME
from tests.contract.test_metric_store import HOUR, MINUTE, NOW, add, on_redis
from tests.support.examples import examples

LABELS = [
    {},
    {"host": "a"},
    {"host": "b"},
    {"host": "a", "disk": "x"},
    {"host": "b", "disk": "y"},
    {"disk": "x"},
]


HOSTS = LabelQuery({}, ("host",))


@pytest.fixture
async def store(store_time):
    store = RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME)
    yield store
    await store.aclose()


def labelled(labels, timestamp, value):
    return Point("cpu", timestamp, value, labels_text(labels))


def expected(points, window, query):
    groups = defaultdict(list)
    for labels, timestamp, value in points:
        if query.matches(labels) and (window is None or window.start_us < timestamp <= window.end_us):
            groups[query.group_values(labels)].append((timestamp, value))
    return {
        key: (len(some), sum(value for _, value in some), min(v for _, v in some), max(v for _, v in some))
        for key, some in groups.items()
    }


async def figures(store, window, query):
    groups, _ = await store.groups("cpu", window, query)
    return {
        tuple(labels.get(name) for name in query.group_by): (
            rollup.count, rollup.total, rollup.minimum, rollup.maximum,
        )
        for labels, (rollup, sketch) in groups
        if rollup.count == sketch.count and rollup.count
    }  # fmt: skip


INSTANTS = st.one_of(
    st.integers(NOW - 25 * HOUR, NOW + 10 * MINUTE),
    st.integers(0, 26 * 60).flatmap(lambda n: st.integers(-1, 1).map(lambda d: NOW - n * MINUTE + d)),
)
POINTS = st.lists(st.tuples(st.sampled_from(LABELS), INSTANTS, st.integers(-99, 99).map(float)), max_size=12)
FILTERS = st.sampled_from(
    [
        {},
        {"host": frozenset("a")},
        {"host": frozenset("ab")},
        {"disk": frozenset("x"), "host": frozenset("a")},
    ]
)


@on_redis
@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(POINTS, st.booleans()), max_size=4),
    FILTERS,
    st.sampled_from([(), ("host",), ("disk", "host")]),
    st.sampled_from([None, 60, 3600, 86400]),
)
async def test_it_says_what_the_points_say(backend, store_time, batches, filters, group_by, seconds):
    await store_time.link.send("FLUSHALL")
    await store_time.publish()
    store = RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME)
    query, everything = LabelQuery(filters, group_by), []
    window = None if seconds is None else Window.rolling(NOW, seconds)
    for points, is_folded in batches:
        await add(store, [labelled(*point) for point in points])
        everything += points
        if is_folded:
            while hours := await store_time.link.send("HKEYS", "m:{cpu}:u"):
                await store._folder.fold(
                    "cpu", int(hours[0])
                )  # in the background it may be under way as well
        assert await figures(store, window, query) == expected(everything, window, query)
    await store.aclose()


@on_redis
@pytest.mark.parametrize("folded_after", [(), (4,), (0, 4), (2, 3), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("deletion", [None, ({"host": frozenset("c")}, None), (None, NOW)])
async def test_of_equal_timestamps_in_a_group_the_last_arrival_is_the_latest(store, folded_after, deletion):
    """Series are numbered in the order of their first points, which is not that of their last ones."""
    await add(store, [labelled({"host": host}, NOW - 1, 0.0) for host in "abc"])
    await store._folder.fold("cpu", NOW // HOUR)
    for n, host in enumerate("abcab"):
        await add(store, [labelled({"host": host}, NOW, float(n))])
        if n in folded_after:
            await store._folder.fold("cpu", NOW // HOUR)
        if n == 2 and deletion is not None:
            await store.delete("cpu", *deletion)
    start = NOW // HOUR * HOUR - 1
    for some in (None, Window.rolling(NOW, 3600), Window(start, start + HOUR)):
        (group,) = (await store.groups("cpu", some, LabelQuery({}, ("disk",)))).groups
        assert group.aggregate.rollup.latest_value == 4.0
        (group,) = (await store.groups("cpu", some, LabelQuery({"host": frozenset("a")}))).groups
        assert group.aggregate.rollup.latest_value == 3.0


@on_redis
async def test_an_hour_that_has_no_new_points_is_folded_without_an_error(store_time):
    store = RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME)
    await store.add(columns_of([labelled({"host": "a"}, NOW, 1.0)]))
    hour = NOW // HOUR

    assert await store._folder.fold("cpu", hour)
    assert await store._folder.fold("cpu", hour), "another worker has folded the points already"
    await store.aclose()


@on_redis
@pytest.mark.parametrize("at_once", [1, 3, 700])
async def test_an_hour_is_folded_in_parts(store_time, monkeypatch, at_once):
    monkeypatch.setattr(series_folder, "POINTS_AT_ONCE", at_once)
    store = RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME)
    size = 20 if at_once < 700 else 3_000
    stamps = [NOW + n % 3 * MINUTE for n in range(size)]
    for first in range(0, size, 10):
        some = [labelled({"host": "ab"[n % 2]}, stamps[n], float(n)) for n in range(first, first + 10)]
        await store.add(columns_of(some))
    before = await figures(store, None, HOSTS)
    unfolded = (await store.groups("cpu", None, HOSTS)).groups

    assert not await store._folder.fold("cpu", NOW // HOUR)
    assert await figures(store, None, HOSTS) == before
    await store._folder.fold_all("cpu")

    assert await store_time.link.send("EXISTS", "m:{cpu}:u") == 0
    assert await figures(store, None, HOSTS) == before
    folded = (await store.groups("cpu", None, HOSTS)).groups
    for ours, theirs in zip(folded, unfolded, strict=True):
        assert ours.aggregate.rollup.latest_value == theirs.aggregate.rollup.latest_value
    await store.aclose()


@on_redis
async def test_the_cap_on_series_rejects_the_point_that_would_create_one_more(store_time):
    store = RedisMetricStore(store_time.link, store_time.clock, Caps(2, 2), time_source=TEST_TIME)
    result = await store.add(columns_of([labelled({"host": str(n)}, NOW + n, float(n)) for n in range(4)]))
    assert [(each.point_index, each.field) for each in result.rejected] == [(2, "labels"), (3, "labels")]
    assert (await store.add_one(labelled({"host": "9"}, NOW, 1.0))).field == "labels"
    assert await store.add_one(labelled({"host": "1"}, NOW, 1.0)) is None
    assert await store.add_one(Point("mem", NOW, 1.0)) is None
    assert (await store.add_one(Point("disk", NOW, 1.0))).field == "type"
    assert [each.type for each in await store.types()] == ["cpu", "mem"]
    assert (await store.aggregate("cpu", None)).rollup.count == 3


@on_redis
@pytest.mark.parametrize("field", ["type", "labels"])
async def test_a_point_is_not_rejected_because_of_a_place_that_another_worker_took(
    store_time, monkeypatch, field
):
    """The second point was rejected for the first one, which then found its place taken by the second."""
    ours, others = (
        RedisMetricStore(store_time.link, store_time.clock, Caps(1, 1), time_source=TEST_TIME)
        for _ in range(2)
    )

    def new(name):
        return Point(name, NOW, 1.0) if field == "type" else labelled({"host": name}, NOW, 1.0)

    resolve, is_taken = ours._resolve, False

    async def slow_resolve(*arguments):
        nonlocal is_taken
        resolved = await resolve(*arguments)
        if not is_taken:
            is_taken = True
            assert await others.add_one(new("b")) is None
        return resolved

    monkeypatch.setattr(ours, "_resolve", slow_resolve)
    result = await ours.add(columns_of([new("a"), new("b")]))
    assert [(each.point_index, each.field) for each in result.rejected] == [(0, field)]
    assert sum(overview.count for overview in await ours.types()) == 2
    await ours.aclose()
    await others.aclose()


@on_redis
async def test_two_workers_that_create_series_at_the_same_time_agree(store_time):
    stores = [RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME) for _ in range(4)]
    await asyncio.gather(
        *(
            store.add(
                columns_of([labelled({"host": str(n)}, NOW + n, float(n)) for n in range(start, start + 30)])
            )
            for start, store in zip((0, 10, 20, 30), stores, strict=True)
        )
    )
    groups, _ = await stores[0].groups("cpu", None, LabelQuery({}, ("host",)))
    counts = {group.labels["host"]: group.aggregate.rollup.count for group in groups}
    assert counts == {str(n): sum(start <= n < start + 30 for start in (0, 10, 20, 30)) for n in range(60)}


async def noted_hours(store_time):
    fields = await store_time.link.send("HGETALL", "m:{cpu}:u")
    return {int(hour): int(count) for hour, count in zip(fields[::2], fields[1::2], strict=True)}


@on_redis
async def test_the_first_labels_of_a_type_with_many_hours_are_stored_in_short_scripts(
    store, store_time, monkeypatch
):
    """One script noted every hour, which for ten years of hours took a second."""
    hours = 2 * series_folder.HOURS_AT_ONCE + 10
    for first in range(0, hours, 150):
        stamps = [NOW - n * HOUR for n in range(first, min(hours, first + 150))]
        await store.add(columns_of([labelled({}, stamp, 1.0) for stamp in stamps]))
    run, most = store_time.link.run, 0

    async def counted_run(*args, **options):
        nonlocal most
        before = len(await noted_hours(store_time))
        reply = await run(*args, **options)
        most = max(most, len(await noted_hours(store_time)) - before)
        return reply

    monkeypatch.setattr(store_time.link, "run", counted_run)
    await store._folder.aclose()
    monkeypatch.setattr(store._folder, "add", lambda _reported: None)
    await store.add(columns_of([labelled({"host": "a"}, NOW + HOUR, 5.0)]))
    assert most <= series_folder.HOURS_AT_ONCE
    assert sum((await noted_hours(store_time)).values()) == hours + 1
    assert await figures(store, None, HOSTS) == {
        (None,): (hours, hours, 1.0, 1.0),
        ("a",): (1, 5.0, 5.0, 5.0),
    }


@on_redis
async def test_while_a_type_is_prepared_for_labels_others_may_write_and_delete(
    store, store_time, monkeypatch
):
    monkeypatch.setattr(series_folder, "HOURS_AT_ONCE", 2)
    hour = NOW // HOUR
    everything = [({}, (hour - n) * HOUR, float(n)) for n in range(6) for _ in range(n + 1)]

    async def prepare_some():
        await store_time.link.run(store._folder._prepare, ["m:{cpu}:d"], ["m:{cpu}:", 2])

    async def add_some(*points):
        everything.extend(points)
        await store.add(columns_of([labelled(*point) for point in points]))

    await store.add(columns_of([labelled(*point) for point in everything]))
    await prepare_some()
    assert set(await noted_hours(store_time)) == {hour - 5, hour - 4}
    await add_some(({}, (hour - 5) * HOUR, 50.0), ({}, (hour - 1) * HOUR, 10.0), ({}, (hour + 1) * HOUR, 1.0))
    await prepare_some()
    cut = (hour - 4) * HOUR
    assert await store.delete("cpu", None, cut + 1) == 6 + 1 + 5
    everything = [point for point in everything if point[1] > cut]
    await prepare_some()
    await store.aclose()
    await store._folder.prepare("cpu")
    await store._folder.aclose()

    counts = await noted_hours(store_time)
    kept = {each[1] // HOUR for each in everything}
    assert set(counts) <= kept
    await add_some(({"host": "a"}, NOW, 7.0))
    await store._folder.fold_all("cpu")
    assert await store_time.link.send("EXISTS", "m:{cpu}:u") == 0
    assert await store_time.link.send("HMGET", "m:{cpu}:d", "labelled", "preparing") == [b"1", None]
    for query in (HOSTS, LabelQuery({}, ())):
        assert await figures(store, None, query) == expected(everything, None, query)


@on_redis
async def test_a_type_that_is_deleted_while_it_is_prepared_leaves_no_key(store, store_time):
    await store.add(columns_of([labelled({}, NOW - n * HOUR, 1.0) for n in range(5)]))
    await store_time.link.run(store._folder._prepare, ["m:{cpu}:d"], ["m:{cpu}:", 2])
    await store.delete("cpu")
    await store._folder.prepare("cpu")
    assert await store_time.link.send("KEYS", "m:{cpu}:*") == []
