"""A fold says of each bucket what its points come to, however the points lie."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from src.analytics.fold import ALL_TIME, ROLLUP_STEPS_US, SKETCH_STEPS_US, fold
from src.analytics.points import Point
from src.analytics.sketch import bin_of, bins_of
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US

spread = st.sampled_from([1, MINUTE_US, 2 * MINUTE_US, HOUR_US, 2 * DAY_US])


@st.composite
def batches(draw):
    """Points that lie within a stretch of a microsecond up to two days, and when sketches begin."""
    start = draw(st.integers(-2 * DAY_US, 2 * DAY_US))
    some = st.tuples(st.integers(start, start + draw(spread)), st.integers(-9, 9).map(float))
    points = [Point("a", timestamp, value) for timestamp, value in draw(st.lists(some, min_size=1))]
    edges = [start // step * step + step for step in SKETCH_STEPS_US]
    return points, draw(st.sampled_from([*edges, *(edge - 1 for edge in edges), -(10**18)]))


def by_bucket(points, steps, from_us=-(10**18)):
    found = defaultdict(list, {ALL_TIME: points})
    for point in points:
        for step in steps:
            number = point.timestamp_us // step
            if (number + 1) * step > from_us:
                found[step, number].append(point)
    return found


@given(batches())
def test_each_bucket_has_the_record_of_its_own_points(batch):
    points, from_us = batch
    folded = fold(points, from_us)["a"]
    rollups = {bucket: rollup for rollup, buckets in folded.rollups for bucket in buckets}
    told = {
        bucket: (rollup.count, rollup.total, rollup.minimum, rollup.maximum, rollup.latest_us)
        for bucket, rollup in rollups.items()
    }
    assert told == {
        bucket: (
            len(some),
            sum(point.value for point in some),
            min(point.value for point in some),
            max(point.value for point in some),
            max(point.timestamp_us for point in some),
        )
        for bucket, some in by_bucket(points, ROLLUP_STEPS_US).items()
    }
    assert folded.total == rollups[ALL_TIME]


@given(batches())
def test_each_bucket_that_is_not_too_old_has_the_sketch_of_its_own_points(batch):
    points, from_us = batch
    folded = fold(points, from_us)["a"]
    sketches = {bucket: bins_of(pages.items()) for pages, buckets in folded.sketches for bucket in buckets}
    expected = by_bucket(points, SKETCH_STEPS_US, from_us)
    assert sketches.keys() == expected.keys()
    for bucket, some in expected.items():
        bins = [bin_of(point.value) for point in some]
        assert sketches[bucket] == {number: bins.count(number) for number in bins}
