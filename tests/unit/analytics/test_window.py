"""Windows: which buckets cover them."""

import pytest

from src.analytics.window import DAY_US, HOUR_US, MINUTE_US, Span, Window

STEPS = (DAY_US, HOUR_US, MINUTE_US)


def test_a_rolling_window_ends_now():
    assert Window.rolling(10_000_000, 4) == Window(6_000_000, 10_000_000)


def test_a_window_must_not_end_before_it_starts():
    with pytest.raises(ValueError, match="must not end before"):
        Window(1, 0)


def test_a_window_of_no_length_is_covered_by_nothing():
    window = Window(HOUR_US - 1, HOUR_US - 1)
    assert list(window.cover(STEPS)) == []
    assert list(window.cover(STEPS, open_ended=True)) == []


def test_a_whole_day_is_one_bucket():
    assert list(Window(DAY_US - 1, 2 * DAY_US - 1).cover(STEPS)) == [Span(DAY_US, 1, 2)]


def test_edges_are_covered_by_ever_shorter_buckets():
    window = Window(HOUR_US - 2 * MINUTE_US - 11, DAY_US + HOUR_US + MINUTE_US + 4)
    assert list(window.cover(STEPS)) == [
        Span(1, HOUR_US - 2 * MINUTE_US - 10, HOUR_US - 2 * MINUTE_US),
        Span(MINUTE_US, 58, 60),
        Span(HOUR_US, 1, 24 + 1),
        Span(MINUTE_US, 25 * 60, 25 * 60 + 1),
        Span(1, DAY_US + HOUR_US + MINUTE_US, DAY_US + HOUR_US + MINUTE_US + 5),
    ]


def test_a_window_with_nothing_behind_it_needs_no_short_buckets_at_its_end():
    window = Window(DAY_US - HOUR_US - 1, DAY_US + 3 * HOUR_US + 5)
    assert list(window.cover(STEPS, open_ended=True)) == [Span(HOUR_US, 23, 24), Span(DAY_US, 1, 2)]


def test_buckets_wholly_behind_the_end_are_left_out():
    window = Window(3 * HOUR_US - MINUTE_US - 1, 4 * HOUR_US)
    assert list(window.cover(STEPS, open_ended=True)) == [
        Span(MINUTE_US, 3 * 60 - 1, 3 * 60),
        Span(HOUR_US, 3, 5),
    ]
