"""Rollups: exact sums, the right latest, nothing lost on the way through text."""

import math

import pytest

from src.analytics.points import Point
from src.analytics.rollup import Rollup


def rollup_of(*values, timestamp_us=0):
    return Rollup.empty().merge(*(Rollup.of(Point("t", timestamp_us, v), n) for n, v in enumerate(values, 1)))


def test_of_nothing_there_is_no_total_and_no_average():
    assert Rollup.empty().count == 0
    assert Rollup.empty().total is None
    assert Rollup.empty().average is None
    assert Rollup.empty().merge(Rollup.empty()).count == 0
    assert Rollup.decode() == Rollup.empty()
    assert Rollup.of_entries([]) == Rollup.empty()


def test_of_one_point_everything_is_that_point():
    rollup = Rollup.of(Point("t", 7, -2.5), 3)
    assert (rollup.count, rollup.total, rollup.average) == (1, -2.5, -2.5)
    assert (rollup.minimum, rollup.maximum) == (-2.5, -2.5)
    assert (rollup.latest_us, rollup.latest_arrival, rollup.latest_value) == (7, 3, -2.5)


def test_ten_thousand_times_a_tenth_averages_to_a_tenth():
    rollup = Rollup.empty()
    for arrival in range(10_000):
        rollup = rollup.merge(Rollup.of(Point("t", 0, 0.1), arrival))
    assert rollup.average == 0.1
    assert rollup.total == 1000.0


def test_small_values_survive_between_great_ones():
    assert rollup_of(1.0, 1e100, 1.0, -1e100).total == 2.0


def test_an_empty_rollup_changes_nothing():
    rollup = rollup_of(1.0, 2.0)
    assert Rollup.empty().merge(rollup) == rollup
    assert rollup.merge(Rollup.empty()) == rollup


def test_the_latest_is_by_timestamp_then_by_arrival():
    early, late = Rollup.of(Point("t", 1, 1.0), 9), Rollup.of(Point("t", 2, 2.0), 1)
    tie = Rollup.of(Point("t", 2, 3.0), 2)
    assert late.merge(early).latest_value == 2.0
    assert early.merge(late).latest_value == 2.0
    assert tie.merge(late).latest_value == 3.0
    assert late.merge(tie).latest_value == 3.0


def test_a_sum_that_overflows_is_none_and_stays_so_while_all_else_is_right():
    rollup = rollup_of(1.7e308, 1.7e308)
    assert rollup.total is None
    assert rollup.average is None
    rollup = Rollup.decode(rollup.encode().encode()).merge(rollup_of(-1.0, timestamp_us=1))
    assert rollup.total is None
    assert (rollup.count, rollup.minimum, rollup.maximum) == (3, -1.0, 1.7e308)
    assert rollup.latest_value == -1.0


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 1e-300, 5e-324, 1.7976931348623157e308, -1e22, 2.0**53 + 2, 123456.789]
)
def test_text_keeps_every_digit(value):
    rollup = rollup_of(value, 0.3, timestamp_us=-62_135_596_800_000_000)
    assert Rollup.decode(rollup.encode().encode()) == rollup


def test_a_negative_zero_keeps_its_sign():
    decoded = Rollup.decode(rollup_of(-0.0).encode().encode())
    assert math.copysign(1, decoded.latest_value) == -1


@pytest.mark.parametrize("overflowed", [b"inf 0.0", b"-inf 0", b"nan -nan", b"-nan nan"])
def test_of_several_texts_one_without_a_sum_leaves_all_else_right(overflowed):
    texts = [b"2 %b 1.5 8.5 200000000000000009 3 2.5" % overflowed, rollup_of(9.0).encode().encode()]
    rollup = Rollup.decode(*texts)
    assert (rollup.total, rollup.count, rollup.minimum, rollup.maximum) == (None, 3, 1.5, 9.0)
    assert (rollup.latest_us, rollup.latest_arrival, rollup.latest_value) == (9, 3, 2.5)


def test_several_texts_are_merged():
    one, two = rollup_of(0.1, 0.2, timestamp_us=5), rollup_of(-7.0, timestamp_us=9)
    assert Rollup.decode(one.encode().encode(), two.encode().encode()) == one.merge(two)
