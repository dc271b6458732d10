"""Folding a batch: one record a bucket, and nothing that no window can reach."""

from itertools import pairwise

from src.analytics.fold import ROLLUP_STEPS_US, SKETCH_STEPS_US, fold
from src.analytics.points import Point
from src.analytics.sketch import bins_of
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US

ALWAYS = -(10**18)


def test_points_are_told_apart_by_type_and_bucket():
    points = [Point("a", 0, 1.0), Point("b", 0, 5.0), Point("a", MINUTE_US, 2.0), Point("a", DAY_US, 4.0)]
    folds = fold(points, ALWAYS)
    assert list(folds) == ["a", "b"]
    assert folds["a"].total.total == 7.0
    sums = {
        step: {number: rollup.total for number, rollup in rollups.items()}
        for step, rollups in folds["a"].rollups.items()
    }
    assert sums == {
        MINUTE_US: {0: 1.0, 1: 2.0, 1440: 4.0},
        HOUR_US: {0: 3.0, 24: 4.0},
        DAY_US: {0: 3.0, 1: 4.0},
    }
    assert folds["b"].total.count == 1


def test_buckets_before_1970_are_numbered_downwards():
    folded = fold([Point("a", -1, 1.0)], ALWAYS)["a"]
    assert all(set(rollups) == {-1} for rollups in folded.rollups.values())
    assert folded.hours == {-1: ([HOUR_US - 1], (1.0,))}


def test_equal_timestamps_keep_the_order_of_the_batch():
    folded = fold([Point("a", HOUR_US, 1.0), Point("a", 0, 2.0), Point("a", HOUR_US, 3.0)], ALWAYS)["a"]
    assert folded.hours[1] == ([0, 0], (1.0, 3.0))
    assert folded.total.latest_value == 3.0
    assert folded.total.count == 3


def test_every_bucket_that_a_window_may_reach_has_a_sketch():
    folded = fold([Point("a", 0, 1.0), Point("a", 1, 1.0), Point("a", MINUTE_US, 2.0)], ALWAYS)["a"]
    assert list(folded.sketches) == list(SKETCH_STEPS_US)
    assert sorted(folded.sketches[MINUTE_US]) == [0, 1]
    assert sorted(bins_of(folded.sketch.items()).values()) == [1, 2]
    assert folded.sketches[SKETCH_STEPS_US[0]] == {0: folded.sketch}


def test_buckets_that_no_window_reaches_have_none():
    folded = fold([Point("a", 0, 1.0), Point("a", 2 * HOUR_US, 2.0)], HOUR_US)["a"]
    assert sorted(folded.sketches[MINUTE_US]) == [120]
    assert sorted(folded.sketches[HOUR_US]) == [2]
    assert folded.sketches[SKETCH_STEPS_US[0]] == {0: folded.sketch}, "one that is reached is whole"
    assert sum(bins_of(folded.sketch.items()).values()) == 2
    assert not any(fold([Point("a", 0, 1.0)], DAY_US)["a"].sketches.values())


def test_lengths_of_buckets_are_multiples_of_one_another():
    for steps in (ROLLUP_STEPS_US, SKETCH_STEPS_US):
        assert all(longer % shorter == 0 for longer, shorter in pairwise(steps))
