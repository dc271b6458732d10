"""The contract of every series store: each window is exact, and large reads are rejected."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.analytics.readings import readings
from src.analytics.series import Steps
from src.analytics.window import Window
from src.resilience.clock import SystemClock
from src.services.errors import StorageUnavailableError
from src.services.metrics.series import SeriesError
from src.storage.metrics.readers import window_reader
from src.storage.metrics.readers.window_reader import WindowReader
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.contract.conftest import StoreTime
from tests.contract.test_metric_store import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    add,
    commands_per_round_trip,
    on_redis,
    points,
    store,
)
from tests.support.examples import examples
from tests.support.metric_model import MemoryMetricStore

__all__ = ["commands_per_round_trip", "store"]


@pytest.fixture
def series(store, store_time: StoreTime):
    return store if store_time.link is None else WindowReader(store_time.link)


def windows_over(start: int, stop: int, step: int) -> list[Window]:
    return list(Steps(start, stop, step).windows())


def figures(aggregates) -> list[tuple[object, ...]]:
    return [
        (rollup.count, rollup.average, rollup.minimum, rollup.maximum) if rollup.count else (0,)
        for rollup, _ in aggregates
    ]


async def test_each_step_has_its_own_points(store, series):
    await add(store, points((NOW, 1.0), (NOW + 59 * SECOND, 3.0), (NOW + 2 * MINUTE, 5.0)))
    aggregates = await series.aggregates("cpu", windows_over(NOW, NOW + 3 * MINUTE, MINUTE))
    assert figures(aggregates) == [(2, 2.0, 1.0, 3.0), (0,), (1, 5.0, 5.0, 5.0)]


async def test_a_later_read_includes_new_points(store, series):
    windows = windows_over(NOW, NOW + 2 * MINUTE, MINUTE)
    await add(store, points((NOW, 1.0), (NOW + MINUTE, 3.0)))
    assert figures(await series.aggregates("cpu", windows)) == [(1, 1.0, 1.0, 1.0), (1, 3.0, 3.0, 3.0)]
    await add(store, points((NOW + 1, 5.0)))
    assert figures(await series.aggregates("cpu", windows)) == [(2, 3.0, 1.0, 5.0), (1, 3.0, 3.0, 3.0)]


async def test_a_series_of_another_type_is_empty(store, series):
    await add(store, points((NOW, 1.0)))
    assert figures(await series.aggregates("mem", windows_over(NOW, NOW + MINUTE, 10 * SECOND))) == [(0,)] * 6


@pytest.mark.parametrize("step", [SECOND, 7 * SECOND, MINUTE, 90 * SECOND, HOUR, 90 * MINUTE, DAY, 36 * HOUR])
async def test_edges_are_exact_to_the_microsecond(store, series, step):
    edge = NOW // step * step + step
    await add(store, points((edge - 1, 1.0), (edge, 2.0), (edge + step - 1, 4.0), (edge + step, 8.0)))
    assert figures(await series.aggregates("cpu", windows_over(edge, edge + step, step))) == [
        (2, 3.0, 2.0, 4.0)
    ]
    cut = await series.aggregates("cpu", windows_over(edge - 1, edge + 1, step))
    assert figures(cut) == [(1, 1.0, 1.0, 1.0), (1, 2.0, 2.0, 2.0)]


async def test_edges_before_1970_are_exact(store, series):
    await add(store, points((-1, 1.0), (-HOUR, 2.0), (0, 4.0)))
    aggregates = await series.aggregates("cpu", windows_over(-HOUR, HOUR, HOUR))
    assert figures(aggregates) == [(2, 1.5, 1.0, 2.0), (1, 4.0, 4.0, 4.0)]


BATCH = st.lists(
    st.tuples(
        st.one_of(
            st.integers(NOW - 3 * DAY, NOW + DAY),
            st.integers(-4000, 60).flatmap(lambda n: st.integers(-1, 1).map(lambda d: NOW + n * MINUTE + d)),
        ),
        st.integers(-(2**40), 2**40).map(lambda n: n / 8),  # so that sums are exact in any order
    ),
    max_size=30,
)


@settings(
    max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch=BATCH,
    start=st.integers(NOW - 3 * DAY, NOW),
    seconds=st.one_of(st.integers(1, 4 * 86400), st.integers(1, 100).map(lambda n: 60 * n)),
    many=st.integers(1, 40),
    aligned=st.booleans(),
)
async def test_the_store_agrees_with_the_model(store_time, batch, start, seconds, many, aligned):
    step = max(1, seconds // many) * SECOND
    if aligned:
        start = start // step * step
    windows = windows_over(start, start + seconds * SECOND, step)
    model = MemoryMetricStore(store_time.clock)
    await add(model, points(*batch))
    ours = model
    if store_time.link is not None:
        await store_time.link.send("FLUSHALL")
        await add(RedisMetricStore(store_time.link, store_time.clock), points(*batch))
        ours = WindowReader(store_time.link)
    assert figures(await ours.aggregates("cpu", windows)) == figures(await model.aggregates("cpu", windows))


# ---------------------------------------------------------------- only in Redis


@on_redis
async def test_an_hour_of_minutes_is_read_in_one_round_trip(store, series, commands_per_round_trip):
    await add(store, points(*((NOW + n * 10_000, float(n)) for n in range(9_000))))
    await series.aggregates("cpu", windows_over(NOW, NOW + MINUTE, MINUTE))  # loads the script
    commands_per_round_trip.clear()
    aggregates = await series.aggregates("cpu", windows_over(NOW - 58 * MINUTE, NOW + 2 * MINUTE, MINUTE))
    assert [rollup.count for rollup, _ in aggregates[-2:]] == [6_000, 3_000]
    assert commands_per_round_trip == [1]


@on_redis
async def test_days_are_read_as_days(store, series, commands_per_round_trip):
    await add(store, points(*((NOW + n * HOUR, 1.0) for n in range(24 * 20))))
    start = NOW // DAY * DAY
    await series.aggregates("cpu", windows_over(start, start + DAY, DAY))
    commands_per_round_trip.clear()
    aggregates = await series.aggregates("cpu", windows_over(start, start + 20 * DAY, DAY))
    assert sum(rollup.count for rollup, _ in aggregates) == 24 * 20 - 8  # NOW is eight o'clock
    assert commands_per_round_trip == [1]


@on_redis
async def test_too_many_points_are_rejected_before_they_are_read(
    store, series, commands_per_round_trip, monkeypatch
):
    monkeypatch.setattr(window_reader, "MAX_POINTS", 100)
    await add(store, points(*((NOW, float(n)) for n in range(101))))
    commands_per_round_trip.clear()
    with pytest.raises(SeriesError, match="101 points") as refused:
        await series.aggregates("cpu", windows_over(NOW, NOW + MINUTE, SECOND))
    assert refused.value.field == "step"
    assert commands_per_round_trip == [2]
    assert figures(await series.aggregates("cpu", windows_over(NOW, NOW + MINUTE, MINUTE))) == [
        (101, 50.0, 0.0, 100.0)
    ]


@on_redis
@pytest.mark.parametrize(
    ("stop", "step"),
    [(NOW + 2000 * (DAY - MINUTE), DAY - MINUTE), (NOW + 130_000 * DAY, 130_000 * DAY)],
    ids=["steps that fit neither hours nor days", "centuries"],
)
async def test_too_many_rollups_are_rejected_before_they_are_read(
    store, series, commands_per_round_trip, stop, step
):
    with pytest.raises(SeriesError, match="request a shorter time") as refused:
        await series.aggregates("cpu", windows_over(NOW // step * step, stop // step * step, step))
    assert refused.value.field == "step"
    assert commands_per_round_trip == []


@pytest.mark.parametrize("step", [59 * MINUTE, 45 * MINUTE, 23 * HOUR, 30 * DAY])
def test_two_thousand_steps_of_whole_minutes_hours_or_days_are_not_too_many(step):
    wanted = list(readings(windows_over(NOW // step * step, NOW // step * step + 2000 * step, step)))
    window_reader._refuse_too_many(wanted)


@on_redis
async def test_expired_keys_count_as_empty(store, series, store_time):
    await add(store, points((NOW, 1.0), (NOW + HOUR, 2.0)))
    await store_time.link.send("DEL", f"m:{{cpu}}:r:{NOW // HOUR}")  # as its expiry does
    for step in (10 * SECOND, MINUTE):
        aggregates = await series.aggregates("cpu", windows_over(NOW, NOW + 2 * HOUR, step))
        assert sum(rollup.count for rollup, _ in aggregates) == 1
    assert [r.count for r, _ in await series.aggregates("cpu", windows_over(NOW, NOW + 2 * HOUR, HOUR))] == [
        1,
        1,
    ]


async def test_without_redis_a_read_raises_unavailable(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    store = WindowReader(link)
    own_redis.kill()
    for step in (SECOND, MINUTE):
        with pytest.raises(StorageUnavailableError):
            await store.aggregates("cpu", windows_over(NOW, NOW + HOUR, step))
    await link.aclose()
