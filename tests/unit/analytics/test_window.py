"""Windows."""

import pytest

from src.analytics.window import Window


def test_a_rolling_window_ends_now():
    assert Window.rolling(10_000_000, 4) == Window(6_000_000, 10_000_000)


def test_a_window_must_not_end_before_it_starts():
    with pytest.raises(ValueError, match="must not end before"):
        Window(1, 0)
