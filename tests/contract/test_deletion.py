"""The contract of deletion: every view is as if the deleted points had never been stored."""

from collections.abc import AsyncIterator

import pytest

from src.analytics.points import Point, labels_text
from src.services.metrics.ingest import MetricStore, Position
from src.storage.metrics.lifecycle import hour_change
from src.storage.metrics.store import RedisMetricStore
from tests.contract.conftest import TEST_TIME, StoreTime
from tests.contract.test_metric_store import DAY, HOUR, MINUTE, NOW, add, on_redis, points, seen
from tests.support.metric_model import MemoryMetricStore
from tests.support.metric_views import views

A, B = frozenset("a"), frozenset("b")


@pytest.fixture
async def store(store_time: StoreTime) -> AsyncIterator[MetricStore]:
    if store_time.link is None:
        yield MemoryMetricStore(store_time.clock)
        return
    store = RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME)
    yield store
    await store.aclose()


def of_host(host, *pairs, of="cpu"):
    return [Point(of, timestamp, value, labels_text({"host": host})) for timestamp, value in pairs]


async def keys_of(store_time, name="cpu"):
    return sorted(key.decode() for key in await store_time.link.send("KEYS", f"m:{{{name}}}:*"))


async def test_of_an_unknown_type_nothing_is_deleted(store):
    assert await store.delete("nothing") == 0
    assert await store.delete("nothing", {"host": A}, NOW) == 0


async def test_a_deleted_type_is_gone_from_every_view_and_others_stay(store):
    await add(
        store, [*points((NOW, 1.0), (NOW - DAY, 2.0)), *of_host("a", (NOW, 3.0)), Point("mem", NOW, 4.0)]
    )
    assert await store.delete("cpu") == 3
    assert await store.delete("cpu") == 0
    assert [overview.type for overview in await store.types()] == ["mem"]
    assert await store.newest("cpu", 10) == []
    assert (await store.aggregate("cpu", None)).rollup.count == 0
    assert await store.series("cpu") == []
    assert seen(await store.newest(None, 10)) == [(NOW, 4.0)]


@on_redis
async def test_a_deleted_type_leaves_no_key(store, store_time):
    await add(
        store, [*points(*((NOW + n, float(n)) for n in range(2_000))), *of_host("a", (NOW - 30 * DAY, 1.0))]
    )
    await store._folder.fold("cpu", NOW // HOUR)
    await store.delete("cpu")
    assert await keys_of(store_time) == []
    assert await store_time.link.send("ZCARD", "types") == 0


@on_redis
async def test_a_fold_that_was_due_before_the_deletion_brings_nothing_back(store, store_time):
    await add(store, of_host("a", (NOW, 1.0)))
    await store.delete("cpu")
    await store._folder.fold("cpu", NOW // HOUR)
    assert await keys_of(store_time) == []


@pytest.mark.parametrize("before", [NOW - 2 * HOUR, NOW - NOW % HOUR, NOW - 1, NOW, NOW + 1, NOW - DAY])
async def test_points_before_an_instant_are_deleted_to_the_microsecond(store, before):
    stamps = [NOW - DAY, NOW - DAY + 1, NOW - 2 * HOUR, NOW - NOW % HOUR, NOW - 1, NOW, NOW]
    await add(store, points(*((stamp, float(n)) for n, stamp in enumerate(stamps))))
    assert await store.delete("cpu", None, before) == sum(stamp < before for stamp in stamps)
    kept = [(stamp, float(n)) for n, stamp in enumerate(stamps) if stamp >= before]
    assert seen(await store.newest("cpu", 10)) == sorted(kept, reverse=True)


async def test_a_series_is_deleted_and_others_stay(store):
    await add(
        store, [*of_host("a", (NOW, 1.0), (NOW - DAY, 2.0)), *of_host("b", (NOW, 4.0)), *points((NOW, 8.0))]
    )
    assert await store.delete("cpu", {"host": A}) == 2
    assert (await store.aggregate("cpu", None)).rollup.total == 12.0
    counts = {labels.get("host"): count for labels, count in await store.series("cpu")}
    assert counts == {"b": 1, None: 1}
    assert (await store.types())[0].series == 1


async def test_labels_that_no_series_has_delete_nothing(store):
    await add(store, points((NOW, 1.0)))
    assert await store.delete("cpu", {"host": A}) == 0
    await add(store, of_host("b", (NOW, 2.0)))
    assert await store.delete("cpu", {"host": A}) == 0
    assert await store.delete("cpu", {"host": B, "disk": A}) == 0
    assert (await store.aggregate("cpu", None)).rollup.count == 2


async def test_a_series_deleted_in_part_keeps_its_name_and_in_whole_loses_it(store):
    await add(store, of_host("a", (NOW - 1, 1.0), (NOW, 2.0)))
    assert await store.delete("cpu", {"host": A}, NOW) == 1
    assert await store.series("cpu") == [({"host": "a"}, 1)]
    await add(store, of_host("b", (NOW, 3.0)))
    assert await store.delete("cpu", {"host": A}, NOW + 1) == 1
    assert await store.series("cpu") == [({"host": "b"}, 1)]


async def test_what_was_deleted_may_come_again(store):
    for _ in range(3):
        await add(store, [*of_host("a", (NOW, 1.0)), *of_host("b", (NOW, 2.0))])
        assert await store.delete("cpu", {"host": A}) == 1
        await add(store, of_host("c", (NOW, 4.0)))
        assert (await store.aggregate("cpu", None)).rollup.total == 6.0
        assert await store.series("cpu") == [({"host": "b"}, 1), ({"host": "c"}, 1)]
        assert await store.delete("cpu") == 2


@pytest.mark.parametrize("size", [1, 63, 64, 65, 511, 512, 1024, 1025, 3000, 70_000])
async def test_deletion_of_half_the_series_of_an_hour_of_any_size(store, store_time, size):
    """The hour is in its head or not, has a sketch or not, and is read in one piece or in several."""
    model = MemoryMetricStore(store_time.clock)
    some = [
        Point("cpu", NOW + n % 7 * MINUTE // 2, float(n % 50), labels_text({"host": "ab"[n % 2]}))
        for n in range(size)
    ]
    for first in range(0, size, 10_000):
        await add(store, some[first : first + 10_000])
        await add(model, some[first : first + 10_000])
    assert await store.delete("cpu", {"host": A}) == await model.delete("cpu", {"host": A})
    await add(store, some[:5])
    await add(model, some[:5])
    if size < 70_000:
        assert await views(store, ["cpu"], NOW + HOUR) == await views(model, ["cpu"], NOW + HOUR)
    assert (await store.aggregate("cpu", None)).rollup.total == (
        await model.aggregate("cpu", None)
    ).rollup.total
    query = ("cpu", None, {"host": B})
    assert len(await store.newest("cpu", 100_000)) == len(await model.newest("cpu", 100_000)), query


# ---------------------------------------------------------------- what only Redis has


async def fold_all(store, link, name):
    """Add all points to blocks of series, as happens once an hour is over."""
    for hour in await link.send("HKEYS", f"m:{{{name}}}:u"):
        await store._folder.fold(name, int(hour))


@on_redis
async def test_a_worker_with_an_old_dictionary_mixes_no_series_up(store_time):
    """Numbers of series are used again after a deletion, by the same type or by one of the same name."""
    ours, others = (
        RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME) for _ in range(2)
    )
    await add(others, of_host("a", (NOW, 1.0)))
    await others.newest("cpu", 10)  # knows the dictionary now
    for filters in (None, {"host": A}):
        await ours.delete("cpu", filters)
        await add(ours, of_host("z", (NOW + 1, 2.0)))
        listed = [stored.point.labels for stored in await others.newest("cpu", 10)]
        assert listed == [labels_text({"host": "z"})]
        await add(others, of_host("a", (NOW + 2, 4.0)))
        for store in (ours, others):
            assert await store.series("cpu") == [({"host": "z"}, 1), ({"host": "a"}, 1)]
            assert await views(store, ["cpu"], NOW + HOUR) == await views(ours, ["cpu"], NOW + HOUR)
        await ours.delete("cpu", {"host": frozenset("z")})
    await ours.aclose()
    await others.aclose()


@on_redis
async def test_hours_without_the_series_are_not_written(store, store_time, monkeypatch):
    for n in range(5):
        await add(store, of_host("b", *((NOW - n * HOUR + m, 1.0) for m in range(2_000))))
    await add(store, of_host("a", (NOW - 2 * HOUR, 1.0)))
    await fold_all(store, store_time.link, "cpu")
    written, run = [], store_time.link.run

    async def watched_run(script, keys, *rest, **options):
        if script.sha == hour_change._STAGE.sha:
            written.append(keys)
        return await run(script, keys, *rest, **options)

    monkeypatch.setattr(store_time.link, "run", watched_run)
    assert await store.delete("cpu", {"host": A}) == 1
    assert len(written) <= 1


@on_redis
async def test_a_cursor_from_before_a_deletion_lists_no_point_twice(store):
    await add(
        store,
        [*of_host("a", *((NOW, float(n)) for n in range(4))), *of_host("b", (NOW, 9.0), (NOW - 1, 8.0))],
    )
    page = await store.newest("cpu", 2)
    last = page[-1]
    await store.delete("cpu", {"host": A})
    before = Position(NOW, "cpu", last.arrival, last.generation)
    assert seen(await store.newest("cpu", 10, before)) == [(NOW - 1, 8.0)]
    assert seen(await store.newest(None, 10, before)) == [(NOW - 1, 8.0)]
