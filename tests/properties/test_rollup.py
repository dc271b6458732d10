"""The rollup of any points is the same for each division into parts."""

import math
import sys
from dataclasses import replace

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from src.analytics.points import format_timestamp, parse_timestamp
from src.analytics.rollup import Rollup

EPSILON = sys.float_info.epsilon

timestamps = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
values = st.floats(-1e300, 1e300)
entries = st.lists(st.tuples(timestamps, values), min_size=1, max_size=50)


@given(entries, st.data())
def test_any_way_to_merge_gives_the_same(points, data):
    cut = data.draw(st.integers(0, len(points)))
    order = data.draw(st.permutations([Rollup.from_points([point]) for point in points]))
    whole = Rollup.from_points(points)
    parts = Rollup.merge([Rollup.merge(order[:cut]), Rollup.merge(order[cut:])])
    values = [value for _, value in points]
    assert (parts.count, parts.minimum, parts.maximum) == (len(values), min(values), max(values))
    assert parts.latest_us == whole.latest_us
    assert math.isclose(whole.total, math.fsum(values), rel_tol=EPSILON)
    rounded_away = EPSILON**2 * len(values) * math.fsum(map(abs, values))
    assert math.isclose(parts.total, whole.total, rel_tol=EPSILON, abs_tol=rounded_away)


@given(entries)
@example([(0, 4.0), (0, 2.0**55 + 8), (0, -2.7639659178956165e-294)])
def test_arrays_and_lists_have_the_same_rollup_and_a_record_keeps_it(points):
    stamps, values = zip(*points, strict=True)
    rollup = Rollup.from_points(points)
    assert Rollup.from_arrays(np.array(stamps, dtype=np.int64), np.array(values)) == rollup
    read = Rollup.from_records(rollup.encode())
    # A sum halfway between two doubles is rounded to either, and the compensation holds the difference.
    assert read.total == rollup.total
    assert replace(read, sum=rollup.sum, compensation=rollup.compensation) == rollup


@given(timestamps)
def test_a_formatted_timestamp_is_parsed_back(timestamp_us):
    assert parse_timestamp(format_timestamp(timestamp_us)) == timestamp_us
