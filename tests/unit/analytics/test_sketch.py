"""The quantile sketch: a relative error of at most 1 % for all normal doubles."""

import sys

import numpy as np
import pytest

from src.analytics.sketch import LogBinSketch, find_bin, subtract

GREATEST = sys.float_info.max
SMALLEST = 5e-324


def test_a_sketch_without_values_has_no_quantile():
    assert LogBinSketch.from_values([]).quantile(0.5) is None
    assert LogBinSketch.from_values([]).count == 0


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_quantile_outside_its_range_is_rejected(q):
    with pytest.raises(ValueError, match="from 0 to 1"):
        LogBinSketch.from_values([1.0]).quantile(q)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.7, GREATEST, -GREATEST, SMALLEST, -SMALLEST, 2.0**60])
def test_every_quantile_of_one_value_is_that_value(value):
    sketch = LogBinSketch.from_values([value])
    assert [sketch.quantile(q) for q in (0, 0.5, 0.99, 1)] == [value] * 4


@pytest.mark.parametrize(("q", "rank"), [(0.0, 1), (0.01, 1), (0.07, 7), (0.5, 50), (0.95, 95), (1.0, 100)])
def test_the_rank_is_the_nearest_one_in_decimals(q, rank):
    sketch = LogBinSketch.from_values([1.05**n for n in range(1, 101)])
    assert sketch.quantile(q) == pytest.approx(1.05**rank, rel=0.01)


def test_values_without_bounds_known_are_estimated_within_one_percent():
    for value in (GREATEST, 1e308, 1.0, 1e-300, -GREATEST, -7.25):
        sketch = LogBinSketch.from_counts({find_bin(value): 3}, -GREATEST, GREATEST)
        assert sketch.quantile(0.5) == pytest.approx(value, rel=0.010001)


def test_bins_have_the_order_of_their_values():
    values = [-GREATEST, -1e9, -1.0, -0.001, -SMALLEST, 0.0, SMALLEST, 0.001, 1.0, 1e9, GREATEST]
    bins = [find_bin(value) for value in values]
    assert bins == sorted(set(bins))
    assert find_bin(-0.0) == 0


def counts(of):
    """Return counts by bin in the representation of the sketch."""
    return np.array(sorted(of), dtype=np.int64), np.array([of[bin_] for bin_ in sorted(of)], dtype=np.int64)


@pytest.mark.parametrize(
    ("stored", "removed", "left"),
    [
        ({1: 3, 2: 1}, {1: 2}, {1: 1, 2: 1}),
        ({1: 3}, {1: 3}, {}),
        ({}, {}, {}),
        ({-7: 2, 9: 1}, {}, {-7: 2, 9: 1}),
        ({5: 2, 6: 1}, {5: 3}, {}),  # another machine counted one value in the next bin
        ({4: 1, 5: 1, 9: 4}, {5: 2, 9: 1}, {9: 3}),
        ({5: 1}, {8: 1}, {5: 1}),  # it was never counted
    ],
)
def test_removed_values_are_subtracted_from_their_bins_or_the_next(stored, removed, left):
    bins, numbers = subtract(counts(stored), counts(removed))
    assert dict(zip(bins.tolist(), numbers.tolist(), strict=True)) == left
