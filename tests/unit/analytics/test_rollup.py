"""Rollups: exact sums, the latest point, and encoding as records without loss."""

import math

import numpy as np
import pytest

from src.analytics.rollup import Rollup


def rollup_of(*values, timestamp_us=0):
    return Rollup.from_points([(timestamp_us, value) for value in values])


def test_without_points_there_is_no_total_and_no_average():
    empty = Rollup.empty()
    assert (empty.count, empty.total, empty.average) == (0, None, None)
    assert Rollup.merge([empty, empty]).count == 0
    assert Rollup.from_records(b"") == empty
    assert Rollup.from_arrays(np.empty(0, dtype=np.int64), np.empty(0)) == empty


def test_the_rollup_of_one_point_is_that_point():
    rollup = Rollup.from_points([(7, -2.5)])
    assert (rollup.count, rollup.total, rollup.average) == (1, -2.5, -2.5)
    assert (rollup.minimum, rollup.maximum) == (-2.5, -2.5)
    assert (rollup.latest_us, rollup.latest_value) == (7, -2.5)


def test_the_average_of_ten_thousand_tenths_is_a_tenth():
    rollup = Rollup.empty()
    for _ in range(10_000):
        rollup = Rollup.merge([rollup, rollup_of(0.1)])
    assert rollup.average == 0.1
    assert rollup.total == 1000.0


def test_small_values_between_large_ones_are_not_lost():
    assert rollup_of(1.0, 1e100, 1.0, -1e100).total == 2.0


def test_an_empty_rollup_changes_nothing():
    rollup = rollup_of(1.0, 2.0)
    assert Rollup.merge([Rollup.empty(), rollup, Rollup.empty()]) == rollup


def test_the_latest_is_by_timestamp_then_by_order():
    early, late, tie = (Rollup.from_points([point]) for point in [(1, 1.0), (2, 2.0), (2, 3.0)])
    assert Rollup.merge([late, early]).latest_value == 2.0
    assert Rollup.merge([early, late]).latest_value == 2.0
    assert Rollup.merge([late, tie]).latest_value == 3.0
    assert Rollup.merge([tie, late]).latest_value == 2.0
    assert Rollup.from_points([(2, 2.0), (2, 3.0), (1, 4.0)]).latest_value == 3.0


def test_after_an_overflow_the_sum_is_none_and_all_else_is_correct():
    rollup = rollup_of(1.7e308, 1.7e308)
    assert (rollup.total, rollup.average) == (None, None)
    for merged in (
        Rollup.merge([Rollup.from_records(rollup.encode()), rollup_of(-1.0, timestamp_us=1)]),
        Rollup.from_records(rollup.encode() + rollup_of(-1.0, timestamp_us=1).encode()),
    ):
        assert merged.total is None
        assert (merged.count, merged.minimum, merged.maximum) == (3, -1.0, 1.7e308)
        assert merged.latest_value == -1.0


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 1e-300, 5e-324, 1.7976931348623157e308, -1e22, 2.0**53 + 2, 123456.789]
)
def test_a_record_keeps_all_digits(value):
    rollup = rollup_of(value, 0.3, timestamp_us=-62_135_596_800_000_000)
    assert Rollup.from_records(rollup.encode()) == rollup


def test_a_negative_zero_keeps_its_sign():
    decoded = Rollup.from_records(rollup_of(-0.0).encode())
    assert math.copysign(1, decoded.latest_value) == -1


def test_records_with_count_0_do_not_count():
    one, two = rollup_of(0.1, 0.2, timestamp_us=5), rollup_of(-7.0, timestamp_us=9)
    empty = bytes(len(one.encode()))
    assert Rollup.from_records(empty + one.encode() + empty + two.encode()) == Rollup.merge([one, two])
