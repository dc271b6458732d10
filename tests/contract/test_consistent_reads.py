"""Reads while others write: a batch is in all that one read shows, or in nothing of it."""

import asyncio
from pathlib import Path

import pytest

from src.analytics.columns import columns_of
from src.analytics.points import Point, labels_text
from src.analytics.window import HOUR_US, Window
from src.services.metrics.labels import LabelQuery
from src.services.metrics.series import SeriesError
from src.storage.metrics.readers import label_reader
from src.storage.metrics.store import RedisMetricStore
from tests.contract.conftest import TEST_TIME
from tests.contract.test_labels import HOSTS
from tests.contract.test_metric_store import HOUR, MINUTE, NOW, SECOND, add, on_redis, place

BATCHES = 60
INSTANTS = [NOW - n * 40 * MINUTE for n in range(20)]


def batch(number: int) -> list[Point]:
    """Return points of two types and two hosts over half a day. Of each type, the values add up to 0."""
    return [
        Point(name, instant + number, value, labels_text({"host": host}))
        for name in ("cpu", "mem")
        for instant in INSTANTS
        for host, value in (("a", 1.0), ("b", -1.0))
    ]


@on_redis
@pytest.mark.parametrize("points_at_once", [label_reader.POINTS_AT_ONCE, 100])
async def test_no_read_shows_half_a_batch(store_time, monkeypatch, points_at_once):
    monkeypatch.setattr(label_reader, "POINTS_AT_ONCE", points_at_once)
    writer, reader = (
        RedisMetricStore(store_time.link, store_time.clock, time_source=TEST_TIME) for _ in range(2)
    )
    per_type = len(batch(0)) // 2
    windows = [None, Window.rolling(NOW + SECOND, 86_400)]
    last = (NOW // HOUR + 1) * HOUR - 1
    hours = [Window(last - (n + 1) * HOUR_US, last - n * HOUR_US) for n in reversed(range(16))]
    is_over = False

    async def write():
        nonlocal is_over
        for number in range(BATCHES):
            await add(writer, batch(number))
            if number % 10 == 9:
                await writer._folder.fold_all("cpu")
        is_over = True

    async def read(name: str) -> list[list[tuple[int, float]]]:
        """Return count and sum of each host, or of both together, as each kind of read shows them."""
        found = []
        for window in windows:
            found.append([(await reader.aggregate(name, window)).rollup])
            found.append(
                [each.aggregate.rollup for each in (await reader.groups(name, window, HOSTS)).groups]
            )
        found.append([rollup for rollup, _ in await reader.aggregates(name, hours)])
        by_hour = await reader.groups_by_window(name, hours, HOSTS)
        found += [[group.aggregate.rollup for group in groups.groups] for groups in by_hour]
        return [[(rollup.count, rollup.total or 0.0) for rollup in some] for some in found]

    writing = asyncio.create_task(write())
    while not is_over:
        for name in ("cpu", "mem"):
            for counted in await read(name):
                assert sum(count for count, _ in counted) % 2 == 0
                assert sum(total for _, total in counted) == 0.0, (name, counted)
            listed = await reader.newest(name, 100_000)
            assert len(listed) % per_type == 0
    await writing
    assert (await reader.aggregate("cpu", None)).rollup.count == BATCHES * per_type
    await writer.aclose()
    await reader.aclose()


DENSE = 1_000_000
MAX_SECONDS = 0.05
"""What one command or script may take of Redis' time."""


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the CPU time of Redis is read from /proc"
)
@pytest.mark.parametrize("backend", ["redis"])
async def test_a_minute_of_a_million_points_keeps_every_read_within_its_bounds(
    redis_server, store_time, monkeypatch
):
    link = store_time.link
    store = RedisMetricStore(link, store_time.clock, time_source=TEST_TIME)
    start = NOW // MINUTE * MINUTE
    hosts = [labels_text({"host": host}) for host in "abcd"]
    for first in range(0, DENSE, 10_000):
        numbers = range(first, first + 10_000)
        await store.add(
            columns_of([Point("cpu", start + n * 59, float(n % 100), hosts[n % 4]) for n in numbers])
        )
    await store.add(columns_of([Point("cpu", start + n * MINUTE, 1.0) for n in (-1, 1)]))
    await store._folder.fold_all("cpu")
    run, send, slowest = link.run, link.send, 0.0

    def measured(call):
        async def measured_call(*arguments, **options):
            nonlocal slowest
            before = redis_server.cpu_seconds()
            reply = await call(*arguments, **options)
            slowest = max(slowest, redis_server.cpu_seconds() - before)
            return reply

        return measured_call

    monkeypatch.setattr(link, "run", measured(run))
    monkeypatch.setattr(link, "send", measured(send))
    half = start + MINUTE // 2
    for window in (None, Window.rolling(half, 3600), Window.rolling(half, 86_400)):
        rollup, sketch = await store.aggregate("cpu", window)
        assert rollup.count == sketch.count
        assert rollup.count >= DENSE // 2
        for query in (HOSTS, LabelQuery({"host": frozenset("a")})):
            groups = (await store.groups("cpu", window, query)).groups
            assert sum(group.aggregate.rollup.count for group in groups) >= DENSE // 8
    page = await store.newest("cpu", 1_000)
    page += await store.newest("cpu", 1_000, place(page[-1]))
    assert len({(stored.point.timestamp_us, stored.arrival) for stored in page}) == 2_000
    assert len(await store.newest("cpu", 1_000, None, {"host": frozenset("a")})) == 1_000
    assert (await store.types())[0].count == DENSE + 2
    minutes = [Window(start + n * MINUTE - 1, start + (n + 1) * MINUTE - 1) for n in range(-30, 30)]
    assert sum(rollup.count for rollup, _ in await store.aggregates("cpu", minutes)) == DENSE + 2
    seconds = [Window(start + n * SECOND - 1, start + (n + 1) * SECOND - 1) for n in range(60)]
    with pytest.raises(SeriesError):
        await store.aggregates("cpu", seconds)
    pages = store.export("cpu", start, half)
    assert (await anext(pages)).timestamps_us[0] == start
    await pages.aclose()
    assert await store.delete("cpu", {"host": frozenset("a")}) == DENSE // 4
    assert slowest <= MAX_SECONDS
    await store.aclose()
