"""Deletions that are interrupted or rejected, or run during writes and other deletions."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest

from src.analytics.points import Point, labels_text
from src.resilience.clock import SystemClock
from src.services.errors import StorageUnavailableError
from src.storage.metrics.lifecycle import deletion, hour_change, lease, series_cleanup
from src.storage.metrics.lifecycle.retention import RedisRetention
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.contract.test_deletion import A, B, keys_of, points_of_host
from tests.contract.test_metric_store import DAY, HOUR, MINUTE, NOW, SECOND, add, on_redis
from tests.support.clock import FakeClock
from tests.support.metric_model import MemoryMetricStore
from tests.support.metric_views import views

STOPPED_TIME = "local function now_us() return 1.8e15 end"
on_real_redis = pytest.mark.parametrize("backend", ["redis"])


@pytest.fixture
async def store(store_time):
    store = RedisMetricStore(store_time.link, SystemClock(), time_source=STOPPED_TIME)
    yield store
    await store.aclose()


async def assert_consistent(store, *, is_interrupted=False):
    """Assert that every view agrees with a model of the points in the list.

    Series without points may still count as series if the deletion `is_interrupted`.
    """
    name = "cpu"
    model = MemoryMetricStore(FakeClock())
    for stored in reversed(await store.newest(name, 1_000_000)):
        await model.add_one(stored.point)
    ours, theirs = await views(store, [name], NOW + HOUR), await views(model, [name], NOW + HOUR)
    if is_interrupted:
        for found in (ours, theirs):
            found["types"] = [replace(overview, series=0) for overview in found["types"]]
    assert ours == theirs


def history():
    """Return points of four days and two hosts, dense in some hours."""
    draw = random.Random(11)
    instants = [
        *(NOW - draw.randrange(3 * DAY) for _ in range(25)),
        *(NOW + draw.randrange(3 * MINUTE) for _ in range(1_600)),
    ]
    return [
        Point("cpu", instant, float(draw.randrange(50)), labels_text({"host": draw.choice("ab")}))
        for instant in instants
    ]


def scripts_of_a_deletion():
    return {
        script.sha
        for script in (
            deletion._COMMIT, deletion._READ, hour_change._READ, hour_change._STAGE, series_cleanup._TOTAL,
            series_cleanup._SERIES,
        )
    }  # fmt: skip


@on_redis
@pytest.mark.parametrize("arguments", [(), ({"host": A},), (None, NOW - DAY), ({"host": A}, NOW + MINUTE)])
async def test_an_interrupted_deletion_is_consistent_and_finished_by_the_next(
    store_time, store, monkeypatch, arguments
):
    monkeypatch.setattr(deletion, "HOURS_AT_ONCE", 10)
    some = history()
    model = MemoryMetricStore(FakeClock())
    await add(model, some)
    await model.delete("cpu", *arguments)
    shas, run = scripts_of_a_deletion(), store_time.link.run
    step = 0
    while True:
        await store_time.link.send("FLUSHALL")
        await add(store, some)
        left = step

        async def failing_run(script, *rest, **options):
            nonlocal left
            if script.sha in shas:
                left -= 1
                if left < 0:
                    raise StorageUnavailableError("the worker was killed")
            return await run(script, *rest, **options)

        monkeypatch.setattr(store_time.link, "run", failing_run)
        with suppress(StorageUnavailableError):
            await store.delete("cpu", *arguments)
        monkeypatch.setattr(store_time.link, "run", run)
        await assert_consistent(store, is_interrupted=True)
        if left >= 0:
            break
        await store.delete("cpu", *arguments)
        assert await views(store, ["cpu"], NOW + HOUR) == await views(model, ["cpu"], NOW + HOUR)
        step += 1 + step // 4
    assert step > 3


@on_redis
async def test_writes_during_deletions_are_neither_lost_nor_doubled(store_time, store):
    """The rewritten hour has points in its head and outside of it, and gets writes all the time."""
    await add(store, history())
    before = await store.newest("cpu", 10_000, None, {"host": B})
    kept = sum(stored.point.value for stored in before)
    writer = RedisMetricStore(store_time.link, SystemClock(), time_source=STOPPED_TIME)
    written, is_over = 0.0, False

    async def write():
        nonlocal written
        while not is_over:
            batch = [*points_of_host("b", *((NOW + n * SECOND, 2.0) for n in range(25)))]
            await add(writer, batch)
            written += 50.0
            await add(writer, points_of_host("a", (NOW - HOUR, 1.0)))

    writing = asyncio.create_task(write())
    for _ in range(5):
        await store.delete("cpu", {"host": A})
        await store.delete("cpu", {"host": A}, NOW)
    is_over = True
    await writing
    await store.delete("cpu", {"host": A})
    assert written
    assert (await store.aggregate("cpu", None)).rollup.total == kept + written
    assert [labels for labels, _ in await store.series("cpu")] == [{"host": "b"}]
    await assert_consistent(store)
    await writer.aclose()


@on_redis
async def test_a_type_that_is_written_to_while_it_is_deleted_stays_consistent(store_time, store):
    await add(store, history())
    writer = RedisMetricStore(store_time.link, SystemClock(), time_source=STOPPED_TIME)

    async def write():
        for n in range(40):
            await add(writer, points_of_host("ab"[n % 2], (NOW + n * SECOND, 2.0), (NOW - DAY, 1.0)))

    async def delete():
        for _ in range(4):
            await store.delete("cpu")

    await asyncio.gather(write(), delete())
    await assert_consistent(store)
    await store.delete("cpu")
    assert await keys_of(store_time) == []
    await writer.aclose()


@on_real_redis
async def test_deletions_of_several_workers_exclude_each_other(store_time):
    stores = [RedisMetricStore(store_time.link, SystemClock(), time_source=STOPPED_TIME) for _ in range(3)]
    some = history()
    await add(stores[0], some)
    deleted = await asyncio.gather(
        stores[0].delete("cpu", {"host": A}),
        stores[1].delete("cpu", {"host": A}),
        stores[2].delete("cpu", {"host": B}, NOW),
    )
    model = MemoryMetricStore(FakeClock())
    await add(model, some)
    assert sum(deleted) == await model.delete("cpu", {"host": A}) + await model.delete(
        "cpu", {"host": B}, NOW
    )
    assert await views(stores[0], ["cpu"], NOW + HOUR) == await views(model, ["cpu"], NOW + HOUR)
    for store in stores:
        await store.aclose()


@on_redis
async def test_a_deletion_waits_for_another_one_and_gives_up(store_time, monkeypatch):
    monkeypatch.setattr(lease, "WAIT_SECONDS", 0)
    store = RedisMetricStore(store_time.link, SystemClock(), time_source=STOPPED_TIME)
    await add(store, history())
    await store_time.link.send("SET", "m:{cpu}:x", "another", "PX", 9_000)
    with pytest.raises(StorageUnavailableError, match="is running"):
        await store.delete("cpu")
    assert (await store.aggregate("cpu", None)).rollup.count == len(history())
    await store.aclose()


@on_redis
async def test_a_deletion_begins_once_the_lease_of_a_killed_worker_expires(store_time, store):
    await add(store, history())
    await store_time.link.send("SET", "m:{cpu}:x", "killed", "PX", 9_000)
    deleting = asyncio.create_task(store.delete("cpu"))
    await asyncio.sleep(0)
    assert not deleting.done()
    await store_time.link.send("DEL", "m:{cpu}:x")  # as its expiry does
    async with asyncio.timeout(10):
        assert await deleting == len(history())


@on_redis
async def test_a_deletion_stops_when_it_loses_its_lease(store_time, store, monkeypatch):
    await add(store, history())
    run = store_time.link.run

    async def run_without_lease(script, *rest, **options):
        if script.sha == deletion._COMMIT.sha:
            await store_time.link.send("SET", "m:{cpu}:x", "another", "PX", 9_000)
        return await run(script, *rest, **options)

    monkeypatch.setattr(store_time.link, "run", run_without_lease)
    with pytest.raises(StorageUnavailableError, match="another deletion"):
        await store.delete("cpu", {"host": A})
    assert (await store.aggregate("cpu", None)).rollup.count == len(history())
    assert await store_time.link.send("GET", "m:{cpu}:x") == b"another", (
        "the first deletion no longer holds the lease"
    )


@on_redis
async def test_a_deletion_that_is_cancelled_gives_its_lease_back(store_time, store, monkeypatch):
    await add(store, history())
    run, reached = store_time.link.run, asyncio.Event()

    async def slow_run(script, *rest, **options):
        if script.sha == deletion._COMMIT.sha:
            reached.set()
            await asyncio.Event().wait()
        return await run(script, *rest, **options)

    monkeypatch.setattr(store_time.link, "run", slow_run)
    deleting = asyncio.create_task(store.delete("cpu"))
    await reached.wait()
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    assert await store_time.link.send("EXISTS", "m:{cpu}:x") == 0


@pytest.fixture
async def restricted(own_redis):
    """A store whose user the test restricts while the store is connected."""
    with own_redis.connect() as client:
        client.acl_setuser("api", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        address = RedisAddress(own_redis.url.replace("unix://", "unix://api:any@"))
        link = RedisLink(connect(address), SystemClock())
        store = RedisMetricStore(link, SystemClock(), time_source=STOPPED_TIME)
        yield store, lambda *rules: client.execute_command("ACL", "SETUSER", "api", *rules), client
        await store.aclose()
        await link.aclose()


@pytest.mark.parametrize("arguments", [(), ({"host": A},), (None, NOW + MINUTE)])
async def test_a_deletion_without_permission_for_a_command_is_consistent(restricted, arguments):
    store, restrict, client = restricted
    some = history()[::10]
    await add(store, some)
    client.config_resetstat()
    await store.delete("cpu", *arguments)
    commands = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    commands -= {"evalsha", "eval", "info", "acl|setuser", "config|resetstat"}
    assert "unlink" in commands
    for command in sorted(commands):
        client.flushdb()
        await add(store, some)
        restrict(f"-{command}")
        await asyncio.gather(store.delete("cpu", *arguments), return_exceptions=True)
        restrict(f"+{command}")
        await assert_consistent(store, is_interrupted=True)
        client.delete("m:{cpu}:x")  # if the lease could not be released
        await store.delete("cpu", *arguments)
        await assert_consistent(store)


@pytest.mark.parametrize("arguments", [(), ({"host": A},), (None, NOW + MINUTE)])
async def test_a_deletion_works_with_a_full_memory(restricted, arguments):
    """Retention must work when Redis has no memory for more points."""
    store, _, client = restricted
    model = MemoryMetricStore(FakeClock())
    await add(store, history())
    await add(model, history())
    client.config_set("maxmemory", 1)
    with pytest.raises(StorageUnavailableError):
        await add(store, history())
    assert await store.delete("cpu", *arguments) == await model.delete("cpu", *arguments)
    client.config_set("maxmemory", 0)
    assert await views(store, ["cpu"], NOW + HOUR) == await views(model, ["cpu"], NOW + HOUR)


async def test_retention_works_with_a_full_memory(restricted):
    store, _, client = restricted
    retention = RedisRetention(store._link)
    client.config_set("maxmemory", 1)
    assert await retention.take_turn(60)
    assert await retention.set_rule("cpu", 60, 10)
    client.config_set("maxmemory", 0)
