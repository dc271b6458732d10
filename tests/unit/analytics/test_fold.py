"""Folding a batch: one record a bucket, and nothing that no window can reach."""

from itertools import pairwise

from src.analytics.fold import ALL_TIME, ROLLUP_STEPS_US, SKETCH_STEPS_US, fold
from src.analytics.points import Point
from src.analytics.sketch import bins_of
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US

ALWAYS = -(10**18)


def by_bucket(records):
    """What a fold has of each bucket, which has one record at most."""
    found = [(bucket, record) for record, buckets in records for bucket in buckets]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_points_are_told_apart_by_type_and_bucket():
    points = [Point("a", 0, 1.0), Point("b", 0, 5.0), Point("a", MINUTE_US, 2.0), Point("a", DAY_US, 4.0)]
    folds = fold(points, ALWAYS)
    assert list(folds) == ["a", "b"]
    assert folds["a"].total.total == 7.0
    assert {bucket: rollup.total for bucket, rollup in by_bucket(folds["a"].rollups).items()} == {
        ALL_TIME: 7.0,
        (DAY_US, 0): 3.0, (DAY_US, 1): 4.0,
        (HOUR_US, 0): 3.0, (HOUR_US, 24): 4.0,
        (MINUTE_US, 0): 1.0, (MINUTE_US, 1): 2.0, (MINUTE_US, 1440): 4.0,
    }  # fmt: skip
    assert folds["b"].total.count == 1


def test_buckets_with_the_same_points_share_a_record():
    folded = fold([Point("a", 0, 1.0), Point("a", MINUTE_US, 2.0)], ALWAYS)["a"]
    assert [buckets for _, buckets in folded.rollups] == [
        (ALL_TIME, (DAY_US, 0), (HOUR_US, 0)), ((MINUTE_US, 0),), ((MINUTE_US, 1),),
    ]  # fmt: skip
    assert [len(buckets) for _, buckets in folded.sketches] == [4, 1, 1]


def test_buckets_before_1970_are_numbered_downwards():
    folded = fold([Point("a", -1, 1.0)], ALWAYS)["a"]
    assert list(by_bucket(folded.rollups)) == [ALL_TIME, *((step, -1) for step in ROLLUP_STEPS_US)]
    assert folded.hours == {-1: ([HOUR_US - 1], (1.0,))}


def test_equal_timestamps_keep_the_order_of_the_batch():
    folded = fold([Point("a", HOUR_US, 1.0), Point("a", 0, 2.0), Point("a", HOUR_US, 3.0)], ALWAYS)["a"]
    assert folded.hours[1] == ([0, 0], (1.0, 3.0))
    assert folded.total.latest_value == 3.0
    assert folded.total.count == 3


def test_every_bucket_that_a_window_may_reach_has_a_sketch():
    folded = fold([Point("a", 0, 1.0), Point("a", 1, 1.0), Point("a", MINUTE_US, 2.0)], ALWAYS)["a"]
    sketches = by_bucket(folded.sketches)
    longer = [(step, 0) for step in SKETCH_STEPS_US if step > MINUTE_US]
    assert sorted(sketches) == sorted([ALL_TIME, *longer, (MINUTE_US, 0), (MINUTE_US, 1)])
    assert sorted(bins_of(sketches[ALL_TIME].items()).values()) == [1, 2]
    assert all(sketches[bucket] == sketches[ALL_TIME] for bucket in longer)


def test_buckets_that_no_window_reaches_have_none():
    sketches = by_bucket(fold([Point("a", 0, 1.0), Point("a", 2 * HOUR_US, 2.0)], HOUR_US)["a"].sketches)
    longest, *shorter = SKETCH_STEPS_US
    assert set(sketches) == {ALL_TIME, (longest, 0), *((step, 2 * HOUR_US // step) for step in shorter)}
    assert sketches[longest, 0] == sketches[ALL_TIME], "one that is reached is whole"
    assert sum(bins_of(sketches[ALL_TIME].items()).values()) == 2
    assert set(by_bucket(fold([Point("a", 0, 1.0)], DAY_US)["a"].sketches)) == {ALL_TIME}


def test_lengths_of_buckets_are_multiples_of_one_another():
    for steps in (ROLLUP_STEPS_US, SKETCH_STEPS_US):
        assert all(longer % shorter == 0 for longer, shorter in pairwise(steps))
