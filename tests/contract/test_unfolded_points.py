"""Reads by labels of types with very many points that no block of series has yet."""

import pytest

from src.analytics.columns import columns_of
from src.analytics.points import Point, labels_text
from src.storage.metrics.readers import label_reader
from src.storage.metrics.store import RedisMetricStore
from tests.contract.conftest import TEST_TIME
from tests.contract.test_labels import HOSTS
from tests.contract.test_metric_store import HOUR, MINUTE, NOW, add, on_redis
from tests.support.metric_model import MemoryMetricStore
from tests.support.metric_views import views

AT_ONCE = 50


@pytest.fixture
async def stores(store_time, monkeypatch):
    """The stores of two workers that fold nothing by themselves, and read few points at once."""
    monkeypatch.setattr(label_reader, "POINTS_AT_ONCE", AT_ONCE)
    stores = [RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME) for _ in range(2)]
    for store in stores:
        monkeypatch.setattr(store._folder, "add", lambda _reported: None)
    yield stores
    for store in stores:
        await store.aclose()


@pytest.fixture
async def model(store_time, stores):
    """An old type that has just got its first labels: the model, which has the same points as the stores."""
    model = MemoryMetricStore(store_time.clock)
    unlabelled = [Point("cpu", NOW + n % 4 * MINUTE - n % 7 * HOUR, float(n)) for n in range(1_500)]
    dense = [Point("cpu", NOW + n % 3 * MINUTE, float(n)) for n in range(1_500)]
    for batch in (unlabelled, dense, labelled(range(0, 3_000, 10))):
        for store in (stores[0], model):
            await store.add(columns_of(batch))
    return model


def labelled(numbers) -> list[Point]:
    return [
        Point("cpu", NOW + n % 4 * MINUTE - n % 9 * HOUR, float(n), labels_text({"host": "ab"[n // 10 % 2]}))
        for n in numbers
    ]


async def assert_same_views(store, model):
    assert await views(store, ["cpu"], NOW + HOUR) == await views(model, ["cpu"], NOW + HOUR)


def at_first_piece(link, monkeypatch, action):
    """Await `action` before the first points are read that the script left out."""
    send, is_done = link.send, False

    async def watched_send(*command):
        nonlocal is_done
        if command[0] == "GETRANGE" and ":r:" in command[1] and not is_done:
            is_done = True
            await action()
        return await send(*command)

    monkeypatch.setattr(link, "send", watched_send)


@on_redis
@pytest.mark.parametrize(("hours_at_once", "unfolded_hours"), [(50, 500), (3, 500), (2, 4)])
async def test_no_reply_has_more_points_than_are_read_at_once(
    stores, store_time, model, monkeypatch, hours_at_once, unfolded_hours
):
    """One script read all points, which for an old type with its first labels took a second."""
    monkeypatch.setattr(label_reader, "HOURS_AT_ONCE", hours_at_once)
    monkeypatch.setattr(label_reader, "MAX_UNFOLDED_HOURS", unfolded_hours)
    store, link, sizes = stores[0], store_time.link, []
    run, send = link.run, link.send

    async def measured_run(script, *rest, **options):
        reply = await run(script, *rest, **options)
        if script.sha == store._labels._script.sha:
            sizes.append(sum(len(points) // 14 for _, _, found in reply[4:] for points in found[3::4]))
        return reply

    async def measured_send(*command):
        reply = await send(*command)
        if command[0] == "GETRANGE":
            sizes.append(len(reply) // 14)
        return reply

    await assert_same_views(store, model)
    monkeypatch.setattr(link, "run", measured_run)
    monkeypatch.setattr(link, "send", measured_send)
    await store.groups("cpu", None, HOSTS)
    assert sum(sizes) == 3_300
    assert max(sizes) <= AT_ONCE


@on_redis
async def test_points_that_are_folded_during_a_read_are_neither_lost_nor_doubled(
    stores, store_time, model, monkeypatch
):
    at_first_piece(store_time.link, monkeypatch, lambda: stores[1]._folder.fold_all("cpu"))
    found = await stores[0].groups("cpu", None, HOSTS)
    assert sum(group.aggregate.rollup.count for group in found.groups) == 3_300
    await assert_same_views(stores[0], model)


@on_redis
async def test_a_batch_that_arrives_during_a_read_is_left_out_of_it(stores, store_time, model, monkeypatch):
    batch = labelled(range(400))
    at_first_piece(store_time.link, monkeypatch, lambda: add(stores[1], batch))
    before = await model.groups("cpu", None, HOSTS)
    found = await stores[0].groups("cpu", None, HOSTS)
    assert [group.aggregate.rollup for group in found.groups] == [
        group.aggregate.rollup for group in before.groups
    ]
    await add(model, batch)
    await assert_same_views(stores[0], model)


@on_redis
@pytest.mark.parametrize("arguments", [(), ({"host": frozenset("a")},), (None, NOW)])
async def test_points_that_are_deleted_during_a_read_are_not_mixed_up(
    stores, store_time, model, monkeypatch, arguments
):
    at_first_piece(store_time.link, monkeypatch, lambda: stores[1].delete("cpu", *arguments))
    found = await stores[0].groups("cpu", None, HOSTS)
    await model.delete("cpu", *arguments)
    expected = await model.groups("cpu", None, HOSTS)
    assert [group.aggregate.rollup.count for group in found.groups] == [
        group.aggregate.rollup.count for group in expected.groups
    ]
    await assert_same_views(stores[0], model)
