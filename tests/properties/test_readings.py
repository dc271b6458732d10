"""Readings cover windows exactly, with as few hours and days as possible."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from src.analytics.readings import readings
from src.analytics.window import DAY_US, HOUR_US, MINUTE_US, Window

spans = st.sampled_from([1, MINUTE_US, 7 * MINUTE_US, HOUR_US, 90 * MINUTE_US, DAY_US, 40 * HOUR_US])


@st.composite
def windows(draw):
    """Windows in order of time, some of them empty, with or without gaps."""
    some, end = [], draw(st.integers(-2 * DAY_US, 2 * DAY_US))
    for _ in range(draw(st.integers(1, 6))):
        start = end + draw(st.sampled_from([0, 0, 0, 1, MINUTE_US, 3 * HOUR_US]))
        end = start + draw(spans) * draw(st.integers(0, 3))
        some.append(Window(start, end))
    return some


@given(windows())
def test_every_instant_of_a_window_is_read_once(some):
    read = [
        (each.start_us + each.first_us, each.start_us + each.stop_us, each.detail) for each in readings(some)
    ]
    assert all(stop <= following for (_, stop, _), (following, _, _) in pairwise(read))
    for window in some:
        covered = sum(
            max(0, min(stop, window.end_us + 1) - max(first, window.start_us + 1)) for first, stop, _ in read
        )
        assert covered == window.end_us - window.start_us


@given(windows())
def test_a_record_lies_within_one_window(some):
    for each in readings(some):
        if each.detail in {"day", "hour"}:
            length = DAY_US if each.detail == "day" else HOUR_US
            first, last = each.start_us, each.start_us + length - 1
            assert (each.first_us, each.stop_us) == (0, length)
            assert any(window.start_us < first and last <= window.end_us for window in some)
        elif each.detail == "minutes":
            edges = {window.start_us + 1 for window in some} | {window.end_us + 1 for window in some}
            inner = [
                edge for edge in edges if each.start_us + each.first_us < edge < each.start_us + each.stop_us
            ]
            assert all(edge % MINUTE_US == 0 for edge in inner)
