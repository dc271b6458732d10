"""The period and the steps of a series, and the periods that are rejected."""

import pytest

from src.analytics.columns import columns_of
from src.analytics.points import Point, parse_timestamp
from src.services.metrics.series import MAX_STEPS, SeriesError, SeriesService
from tests.support.metric_model import MemoryMetricStore

NOW = 1_800_000_000_000_000  # a whole hour
SECOND, HOUR = 1_000_000, 3_600_000_000


@pytest.fixture
def store(clock) -> MemoryMetricStore:
    return MemoryMetricStore(clock)


@pytest.fixture
def series(store, clock) -> SeriesService:
    return SeriesService(store, clock)


def times(found) -> list[int]:
    return [time for time, _ in found]


async def test_each_step_has_its_beginning(series, store):
    await store.add(columns_of([Point("cpu", NOW - 61 * SECOND, 1.0), Point("cpu", NOW - 1, 3.0)]))
    found = await series.get("cpu", NOW - 120 * SECOND, NOW, 60)
    assert [(time, rollup.count) for time, (rollup, _) in found] == [
        (NOW - 120 * SECOND, 1),
        (NOW - 60 * SECOND, 1),
    ]


async def test_the_default_period_is_the_last_hour_with_the_current_step(series, clock):
    clock.jump(30)
    found = times(await series.get("cpu", None, None, 60))
    assert (len(found), found[0], found[-1]) == (60, NOW - HOUR + 60 * SECOND, NOW)


async def test_at_the_end_of_a_step_the_next_step_has_not_begun(series):
    assert times(await series.get("cpu", None, None, 3600)) == [NOW - HOUR]


async def test_by_default_the_first_step_is_whole(series, clock):
    clock.jump(1)
    under_way = NOW // (2000 * SECOND) * 2000 * SECOND
    assert times(await series.get("cpu", None, None, 2000)) == [under_way - 2000 * SECOND, under_way]


async def test_with_a_step_longer_than_an_hour_there_is_one_step(series, clock):
    clock.jump(1)
    assert times(await series.get("cpu", None, None, 86_400)) == [NOW // (24 * HOUR) * 24 * HOUR]


async def test_without_an_end_the_period_includes_the_current_step(series, clock):
    clock.jump(61)
    found = times(await series.get("cpu", NOW - 30 * SECOND, None, 60))
    assert found == [NOW - 60 * SECOND, NOW, NOW + 60 * SECOND]


async def test_without_a_start_the_period_is_the_hour_before_the_end(series):
    assert times(await series.get("cpu", None, NOW - HOUR, 1800)) == [NOW - 2 * HOUR, NOW - 3 * HOUR // 2]


async def test_at_most_two_thousand_steps_are_returned(series):
    assert len(await series.get("cpu", NOW, NOW + MAX_STEPS * SECOND, 1)) == MAX_STEPS
    with pytest.raises(SeriesError, match="2001 steps") as refused:
        await series.get("cpu", NOW, NOW + MAX_STEPS * SECOND + 1, 1)
    assert refused.value.field == "step"


@pytest.mark.parametrize(("start", "stop"), [(NOW, NOW), (NOW + 1, NOW), (NOW + 120 * SECOND, None)])
async def test_a_series_that_ends_before_it_begins_is_rejected(series, start, stop):
    with pytest.raises(SeriesError, match="before") as refused:
        await series.get("cpu", start, stop, 60)
    assert refused.value.field == "from"


async def test_a_step_before_the_year_1_is_rejected(series):
    first = parse_timestamp("0001-01-01T00:00:00Z")
    assert times(await series.get("cpu", first, first + 1, 60)) == [first]
    with pytest.raises(SeriesError, match="year 1") as refused:
        await series.get("cpu", first, first + 1, 7 * 86_400 + 1)
    assert refused.value.field == "step"
