"""Whatever the values: quantiles within 1 %, and sketches that add up."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.analytics.sketch import LogBinSketch, bin_of, merge_bins

NORMAL = sys.float_info.min

values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.floats(-100, 100, allow_subnormal=False),
    st.integers(-5, 5).map(float),
)


def nearest_rank(sample, percent):
    return sorted(sample)[max(1, math.ceil(percent * len(sample) / 100)) - 1]


@given(st.lists(values, min_size=1, max_size=200), st.integers(0, 100))
def test_a_quantile_is_within_one_percent_of_the_nearest_rank(sample, percent):
    estimate = LogBinSketch.of(sample).quantile(percent / 100)
    assert estimate == pytest.approx(nearest_rank(sample, percent), rel=0.01 + 1e-9, abs=0)
    assert min(sample) <= estimate <= max(sample)


@given(st.lists(st.lists(values)))
def test_merged_bins_are_those_of_all_values(parts):
    merged = merge_bins(dict(_bins(part)) for part in parts)
    assert merged == _bins([value for part in parts for value in part])


@given(values, values)
def test_bins_never_order_against_values(one, other):
    if one < other:
        assert bin_of(one) <= bin_of(other)


def _bins(sample):
    counts = {}
    for value in sample:
        counts[bin_of(value)] = counts.get(bin_of(value), 0) + 1
    return counts
