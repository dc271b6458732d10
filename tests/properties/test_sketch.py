"""For all values, quantiles are exact within 1 %, and sketches can be added."""

import math
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.analytics.sketch import (
    LogBinSketch,
    decode_entries,
    encode_cells,
    encode_counts,
    encode_one,
    find_bin,
    find_bins,
    subtract,
    sum_by_bin,
    sum_cells,
)

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
    estimate = LogBinSketch.from_values(sample).quantile(percent / 100)
    assert estimate == pytest.approx(nearest_rank(sample, percent), rel=0.01 + 1e-9, abs=0)
    assert min(sample) <= estimate <= max(sample)


@given(st.lists(st.dictionaries(values.map(find_bin), st.integers(1, 2**30), min_size=1)))
def test_the_joined_logs_of_several_sketches_have_the_bins_of_all(sketches):
    log = b"".join(encode_counts(np.array([*bins]), np.array([*bins.values()])) for bins in sketches)
    expected = Counter()
    for bins in sketches:
        expected.update(bins)
    bins, counts = decode_entries(log)
    assert dict(zip(bins.tolist(), counts.tolist(), strict=True)) == expected
    assert bins.tolist() == sorted(expected)


@given(st.lists(values, min_size=1))
def test_bins_are_the_same_one_by_one_and_all_at_once(sample):
    numbers = find_bins(np.array(sample))
    assert numbers.tolist() == [find_bin(value) for value in sample]


@given(st.lists(st.tuples(st.integers(0, 3), values), min_size=1), st.sampled_from([1, 9_000]))
def test_sketches_are_the_same_one_by_one_and_all_at_once(sample, times):
    owners = np.repeat([owner for owner, _ in sample], times)
    bins = np.repeat(find_bins(np.array([value for _, value in sample])), times)
    entries, sizes = encode_cells(*sum_cells(owners, bins, np.ones_like(bins), 4), 4)
    assert len(sizes) == 4
    for owner, some in enumerate(np.split(entries, np.cumsum(sizes)[:-1])):
        numbers = [find_bin(value) for one, value in sample if one == owner]
        log = b"".join(encode_one(number).to_bytes(4, "little") for number in numbers)
        expected_bins, expected_counts = decode_entries(log)
        found_bins, found_counts = decode_entries(some.tobytes())
        assert found_bins.tolist() == expected_bins.tolist()
        assert found_counts.tolist() == (expected_counts * times).tolist()


@given(values, values)
def test_bins_never_order_against_values(one, other):
    if one < other:
        assert find_bin(one) <= find_bin(other)


@given(st.lists(st.tuples(values, st.booleans()), max_size=200))
def test_removed_values_leave_the_sketch_of_the_others(sample):
    def counted(some):
        bins = find_bins(np.array(some, dtype=np.float64))
        return sum_by_bin(bins, np.ones_like(bins))

    kept = [value for value, is_kept in sample if is_kept]
    removed = [value for value, is_kept in sample if not is_kept]
    left = subtract(counted(kept + removed), counted(removed))
    assert [part.tolist() for part in left] == [part.tolist() for part in counted(kept)]
