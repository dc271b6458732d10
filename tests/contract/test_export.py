"""The contract of exports: each point once, by time and then by arrival, for any layout and load."""

import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.analytics.points import Point, labels_text
from src.services.errors import StorageUnavailableError
from src.services.metrics.labels import LabelQuery
from src.storage.metrics.layout import HEAD_POINTS
from src.storage.metrics.readers import dense_minute, export_reader
from src.storage.metrics.store import RedisMetricStore
from tests.contract.test_metric_store import DAY, HOUR, MINUTE, NOW, SECOND, add, on_redis, store_on
from tests.support.examples import examples
from tests.support.metric_model import MemoryMetricStore

THIS_MINUTE = NOW // MINUTE * MINUTE
LABELS = [{}, {"host": "a"}, {"host": "b"}, {"host": "a", "disk": "x"}]


@pytest.fixture
async def store(store_time):
    store = store_on(store_time)
    yield store
    if isinstance(store, RedisMetricStore):
        await store.aclose()


@pytest.fixture
def small_pages(monkeypatch):
    """Lower the sizes of pages, so that a few points need several pages."""
    monkeypatch.setattr(export_reader, "PAGE_POINTS", 7)
    monkeypatch.setattr(export_reader, "YIELDED_POINTS", 3)
    monkeypatch.setattr(dense_minute, "PIECE_POINTS", 4)
    monkeypatch.setattr(dense_minute, "LEAST_KEPT", 5)


async def exported(store, metric_type="cpu", *bounds, filters=None) -> list[Point]:
    pages = [page async for page in store.export(metric_type, *bounds, filters=filters)]
    return [Point(metric_type, *point) for page in pages for point in zip(*page, strict=True)]


async def filled_head(store, at: int, metric_type="cpu") -> list[Point]:
    """Fill the head of the hour of `at`, so that later points are stored in minute partitions."""
    points = [Point(metric_type, at, float(-n)) for n in range(1, HEAD_POINTS + 1)]
    await add(store, points)
    return points


async def test_an_export_of_an_unknown_type_is_empty(store):
    assert await exported(store, "nothing") == []


async def test_points_are_ordered_by_time_and_then_by_arrival(store):
    await add(store, [Point("cpu", NOW, 1.0), Point("cpu", NOW - DAY, 2.0), Point("cpu", NOW, 3.0)])
    await add(store, [Point("cpu", NOW, 4.0), Point("cpu", NOW - 1, 5.0), Point("mem", NOW, 6.0)])

    assert [point.value for point in await exported(store)] == [2.0, 5.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "bounds",
    [(None, None), (NOW, None), (None, NOW), (NOW, NOW + 1), (NOW + 1, NOW + 1), (NOW - HOUR, NOW + HOUR)],
)
async def test_the_first_instant_is_included_and_the_last_is_not(store, bounds):
    instants = [NOW - 400 * DAY, NOW - HOUR, NOW - 1, NOW, NOW + 1, NOW + HOUR]
    await add(store, [Point("cpu", instant, 1.0) for instant in instants])

    start, stop = bounds
    assert [point.timestamp_us for point in await exported(store, "cpu", *bounds)] == [
        instant
        for instant in instants
        if (start is None or instant >= start) and (stop is None or instant < stop)
    ]


@pytest.mark.parametrize("first", [-62_135_596_800_000_000, -1, 253_402_300_799_999_999 - MINUTE])
async def test_every_year_is_exported(store, first):
    await add(store, [Point("cpu", first + MINUTE, 2.0), Point("cpu", first, 1.0)])

    assert [point.value for point in await exported(store)] == [1.0, 2.0]


async def test_a_series_is_exported_by_its_labels(store):
    points = [
        Point("cpu", NOW + n, float(n), labels_text(LABELS[n % len(LABELS)])) for n in range(len(LABELS) * 3)
    ]
    await add(store, points)

    assert await exported(store) == points
    for filters in (
        {"host": frozenset("a")},
        {"host": frozenset("ab"), "disk": frozenset("x")},
        {"no": frozenset("x")},
    ):
        query = LabelQuery(filters)
        wanted = [point for n, point in enumerate(points) if query.matches(LABELS[n % len(LABELS)])]
        assert await exported(store, filters=filters) == wanted


@pytest.mark.parametrize("order", ["ascending", "descending", "random", "equal"])
async def test_a_dense_minute_is_in_order_for_any_order_of_arrival(store, small_pages, order):
    head = await filled_head(store, THIS_MINUTE + 30 * SECOND)
    instants = [THIS_MINUTE + (0 if order == "equal" else n * SECOND // 10) for n in range(400)]
    if order == "descending":
        instants.reverse()
    elif order == "random":
        random.Random(7).shuffle(instants)
    points = [Point("cpu", instant, float(n)) for n, instant in enumerate(instants)]
    around = [Point("cpu", THIS_MINUTE + n * MINUTE, 0.5) for n in (-61, -1, 1, 60)]
    for first in range(0, len(points), 90):
        await add(store, points[first : first + 90])
    await add(store, around)

    everything = sorted([*head, *points, *around], key=lambda point: point.timestamp_us)
    assert await exported(store) == everything
    bounds = THIS_MINUTE + SECOND, THIS_MINUTE + 2 * SECOND
    assert await exported(store, "cpu", *bounds) == [
        point for point in everything if bounds[0] <= point.timestamp_us < bounds[1]
    ]


async def test_writes_during_an_export_do_not_repeat_or_skip_points(store, small_pages):
    await filled_head(store, THIS_MINUTE)
    for n in range(60):
        await add(store, [Point("cpu", THIS_MINUTE + n * MINUTE + m, float(n * m)) for m in range(n % 20)])
    before = await exported(store)

    seen = []
    async for page in store.export("cpu"):
        seen += zip(*page, strict=True)
        await add(store, [Point("cpu", THIS_MINUTE + random.randrange(HOUR), 0.5) for _ in range(3)])

    assert [point for point in seen if point[1] != 0.5] == [point[1:] for point in before]


async def test_an_hour_whose_head_is_closed_during_the_export_is_exported_exactly_once(store, small_pages):
    points = [Point("cpu", THIS_MINUTE + n * SECOND, float(n)) for n in range(HEAD_POINTS - 10)]
    await add(store, points)

    pages = store.export("cpu")
    seen = [*zip(*await anext(pages), strict=True)]
    late = [Point("cpu", THIS_MINUTE + n * SECOND, 0.5) for n in range(100)]
    await add(store, late)
    seen += [point async for page in pages for point in zip(*page, strict=True)]

    assert [point for point in seen if point[1] != 0.5] == [point[1:] for point in points]


INSTANTS = st.one_of(
    st.sampled_from([NOW - DAY, NOW, NOW + 1, NOW + MINUTE]),
    st.integers(NOW - 2 * HOUR, NOW + HOUR),
    st.integers(THIS_MINUTE, THIS_MINUTE + 20),
)
VALUES = st.floats(allow_nan=False, allow_infinity=False)
BATCHES = st.lists(
    st.lists(st.tuples(INSTANTS, VALUES, st.sampled_from(LABELS)), min_size=1, max_size=30), max_size=4
)


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BATCHES, st.booleans(), INSTANTS, INSTANTS)
async def test_after_any_history_the_export_agrees_with_the_model(
    store_time, small_pages, batches, is_closed, start, stop
):
    if store_time.link is not None:
        await store_time.link.send("FLUSHALL")
        await store_time.publish()
    store, model = store_on(store_time), MemoryMetricStore(store_time.clock)
    for one in (store, model):
        if is_closed:
            await filled_head(one, NOW)
        for batch in batches:
            points = [Point("cpu", instant, value, labels_text(labels)) for instant, value, labels in batch]
            await add(one, points)

    for bounds in ((), (start, stop)):
        for filters in (None, {"host": frozenset("a")}):
            assert await exported(store, "cpu", *bounds, filters=filters) == await exported(
                model, "cpu", *bounds, filters=filters
            )
    if isinstance(store, RedisMetricStore):
        await store.aclose()


# ---------------------------------------------------------------- only in Redis


@on_redis
async def test_many_sparse_hours_take_few_round_trips(store, store_time):
    points = [Point("cpu", NOW + n * HOUR, float(n)) for n in range(3_000)]
    await add(store, points)
    before = store_time.link.round_trips

    assert await exported(store) == points
    assert store_time.link.round_trips - before <= 8


@on_redis
async def test_a_page_has_a_bounded_number_of_points(store, store_time, monkeypatch):
    sizes = []
    read = export_reader.ExportReader._read

    async def measured(self, *arguments):
        page = await read(self, *arguments)
        sizes.append(len(page.points.values))
        return page

    monkeypatch.setattr(export_reader.ExportReader, "_read", measured)
    for n in range(60):
        await add(store, [Point("cpu", THIS_MINUTE + n * MINUTE + m, float(m)) for m in range(1_000)])

    assert len(await exported(store)) == 60_000
    assert max(sizes) <= 2 * export_reader.PAGE_POINTS


MINUTE_KEY = f"m:{{cpu}}:r:{THIS_MINUTE // HOUR}:{THIS_MINUTE % HOUR // MINUTE}"


async def rewrite_minute(link, points: bytes | None = None):
    """Rewrite a minute like a deletion that keeps `points` of it; None keeps all points."""
    if points is not None:
        await link.send("SET", MINUTE_KEY, points)
    await link.send("HSET", "m:{cpu}:d", "generation", random.random())


@pytest.fixture
async def dense_points(store, store_time, small_pages) -> list[Point]:
    """Return points in the head of an hour, and 500 points in one of its minutes."""
    head = await filled_head(store, THIS_MINUTE)
    points = [Point("cpu", THIS_MINUTE + n, float(n)) for n in range(1, 501)]
    await add(store, points)
    return [*head, *points]


@on_redis
@pytest.mark.parametrize("left", [None, 0, 14, -14])
async def test_points_deleted_before_their_minute_is_exported_are_not_exported(
    store, store_time, dense_points, monkeypatch, left
):
    read = dense_minute._Piece.decode
    reads = []

    def decode(piece, points):
        reads.append(piece)
        return read(piece, points)

    async def send(*command):
        if len(reads) == 60 and command[0] == "GETRANGE":
            reads.append(None)
            stored = await sent("GET", MINUTE_KEY)
            await rewrite_minute(store_time.link, None if left is None else stored[:left] or b"")
            if not stored[:left]:
                records = f"m:{{cpu}}:n:{THIS_MINUTE // HOUR}"
                await sent("SETRANGE", records, THIS_MINUTE % HOUR // MINUTE * 56, b"\0" * 56)
            elif left is not None:
                count = struct.pack("<d", len(stored[:left]) // 14)
                records = f"m:{{cpu}}:n:{THIS_MINUTE // HOUR}"
                await sent("SETRANGE", records, THIS_MINUTE % HOUR // MINUTE * 56, count)
        return await sent(*command)

    monkeypatch.setattr(dense_minute._Piece, "decode", decode)
    sent = store_time.link.send
    monkeypatch.setattr(store_time.link, "send", send)

    kept = {None: 500, 0: 0, 14: 1, -14: 499}[left]
    assert await exported(store) == dense_points[: HEAD_POINTS + kept]


@on_redis
@pytest.mark.parametrize("left", [0, 7_000 - 14])
async def test_a_deletion_in_the_minute_being_exported_ends_the_export(store, store_time, dense_points, left):
    pages = store.export("cpu")
    for _ in range((HEAD_POINTS + 100) // 3):
        await anext(pages)

    stored = await store_time.link.send("GET", MINUTE_KEY)
    await rewrite_minute(store_time.link, stored[7_000 - left :])

    with pytest.raises(StorageUnavailableError):
        async for _ in pages:
            pass


@on_redis
async def test_a_deletion_in_another_minute_does_not_end_the_export(store, store_time, dense_points):
    seen = []
    async for page in store.export("cpu"):
        seen += zip(*page, strict=True)
        if len(seen) > HEAD_POINTS:
            await rewrite_minute(store_time.link)

    assert [Point("cpu", *point) for point in seen] == dense_points


@on_redis
async def test_a_minute_that_is_rewritten_again_and_again_ends_the_export(
    store, store_time, dense_points, monkeypatch
):
    send = store_time.link.send

    async def rewriting_run(*command):
        if command[0] == "GETRANGE":
            await send("HSET", "m:{cpu}:d", "generation", random.random())
        return await send(*command)

    monkeypatch.setattr(store_time.link, "send", rewriting_run)

    with pytest.raises(StorageUnavailableError):
        await exported(store)


@on_redis
async def test_expired_hours_are_skipped(store, store_time):
    await add(store, [Point("cpu", NOW + n * HOUR, float(n)) for n in range(3)])
    await store_time.link.send("DEL", f"m:{{cpu}}:r:{NOW // HOUR + 1}")

    assert [point.value for point in await exported(store)] == [0.0, 2.0]
