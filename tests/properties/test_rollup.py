"""Whatever the points and however they are split: the same rollup."""

import math
import sys
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from src.analytics.points import Point, format_timestamp, parse_timestamp
from src.analytics.rollup import Rollup

EPSILON = sys.float_info.epsilon

timestamps = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
values = st.floats(-1e300, 1e300)
rollups = st.lists(st.tuples(timestamps, values), min_size=1, max_size=30).map(
    lambda entries: Rollup.of_entries([(us, n, value) for n, (us, value) in enumerate(entries)])
)


@given(st.lists(st.tuples(timestamps, values), min_size=1, max_size=50), st.data())
def test_any_way_to_merge_says_the_same(entries, data):
    singles = [Rollup.of(Point("t", us, value), n) for n, (us, value) in enumerate(entries)]
    cut = data.draw(st.integers(0, len(singles)))
    order = data.draw(st.permutations(singles))
    whole = Rollup.empty().merge(*singles)
    parts = Rollup.empty().merge(*order[:cut]).merge(Rollup.empty().merge(*order[cut:]))
    values = [value for _, value in entries]
    assert (parts.count, parts.minimum, parts.maximum) == (len(values), min(values), max(values))
    assert (parts.latest_us, parts.latest_arrival) == (whole.latest_us, whole.latest_arrival)
    assert parts.latest_value == whole.latest_value
    assert math.isclose(whole.total, math.fsum(values), rel_tol=EPSILON)
    rounded_away = EPSILON**2 * len(values) * math.fsum(map(abs, values))
    assert math.isclose(parts.total, whole.total, rel_tol=EPSILON, abs_tol=rounded_away)


@given(rollups)
def test_text_keeps_everything(rollup):
    decoded = Rollup.decode(rollup.encode().encode())
    assert decoded.total == rollup.total
    assert replace(decoded, sum=0.0, compensation=0.0) == replace(rollup, sum=0.0, compensation=0.0)


@given(timestamps)
def test_timestamps_survive_their_text(timestamp_us):
    assert parse_timestamp(format_timestamp(timestamp_us)) == timestamp_us
