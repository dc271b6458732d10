"""A fold has every point in its minute, with the correct rollup and sketch, for all points."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from src.analytics.columns import POINT_DTYPE, fold, fold_few
from src.analytics.rollup import Rollup
from src.analytics.sketch import decode_entries, find_bin
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US

spread = st.sampled_from([1, MINUTE_US, 2 * MINUTE_US, HOUR_US, 2 * DAY_US])


@st.composite
def batches(draw):
    """Points that lie within a microsecond up to two days, with the numbers of their series."""
    start = draw(st.integers(-2 * DAY_US, 2 * DAY_US))
    point = st.tuples(
        st.integers(start, start + draw(spread)), st.integers(-9, 9).map(float), st.integers(0, 65_535)
    )
    return draw(st.lists(point, min_size=1, max_size=40))


@given(batches())
def test_each_minute_has_its_own_points(batch):
    expected = defaultdict(list)
    for point in batch:
        expected[point[0] // MINUTE_US].append(point)
    folds = fold_few(batch)
    assert [each.minute for each in folds] == sorted(expected)
    for minute, points, rollup, entries in folds:
        mine = expected[minute]
        hour_us = minute * MINUTE_US // HOUR_US * HOUR_US
        table = np.frombuffer(points, dtype=POINT_DTYPE)
        assert [(us - hour_us, series, value) for us, value, series in mine] == table.tolist()
        assert Rollup.from_records(rollup) == Rollup.from_points([(us, value) for us, value, _ in mine])
        bins, counts = decode_entries(entries)
        numbers = [find_bin(value) for _, value, _ in mine]
        assert dict(zip(bins.tolist(), counts.tolist(), strict=True)) == {
            n: numbers.count(n) for n in numbers
        }


@given(st.lists(batches(), min_size=1, max_size=4))
def test_with_and_without_numpy_the_fold_is_the_same(types):
    folded = fold([_columns(batch) for batch in types])
    assert len(folded) == len(types)
    for (minutes, entries), batch in zip(folded, types, strict=True):
        few = fold_few(batch)
        assert [_comparable(each) for each in minutes] == [_comparable(each) for each in few]
        numbers = Counter(find_bin(value) for _, value, _ in batch) if len(few) > 1 else {}
        bins, counts = decode_entries(entries)
        assert dict(zip(bins.tolist(), counts.tolist(), strict=True)) == numbers


def test_a_bin_with_more_points_than_an_entry_can_count_is_folded_with_its_own_type():
    many, few = [(0, 1.0, 0)] * 20_000, [(MINUTE_US, 1.0, 0), (0, 2.0, 0)]
    (of_many, _), (of_few, _) = fold([_columns(many), _columns(few)])
    assert decode_entries(of_many[0].entries)[1].tolist() == [20_000]
    assert [_comparable(each) for each in of_few] == [_comparable(each) for each in fold_few(few)]


def test_values_of_all_magnitudes_are_folded():
    batch = [(0, sign * 10.0**exponent, 0) for exponent in range(-300, 300, 7) for sign in (1, -1)]
    ((minute,), _) = fold([_columns(batch)])[0]
    assert _comparable(minute) == _comparable(fold_few(batch)[0])


def _columns(batch):
    timestamps, values, series = zip(*batch, strict=True)
    return np.array(timestamps), np.array(values), np.array(series, dtype=np.uint16)


def _comparable(folded):
    bins, counts = decode_entries(folded.entries)
    return *folded[:3], bins.tolist(), counts.tolist()
