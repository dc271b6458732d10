"""The most recent latencies and their quantiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.resilience.building_blocks.latencies import RecentLatencies


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 10), st.floats(0.01, 0.99))
def test_a_quantile_is_that_of_the_latest_latencies(latencies: list[float], size: int, share: float) -> None:
    recent = RecentLatencies(size)
    for seconds in latencies:
        recent.add(seconds)
    latest = sorted(latencies[-size:])
    assert len(recent) == len(latest)
    assert recent.quantile(share) == latest[int(share * len(latest))]


def test_the_quantile_of_a_hundred_latencies() -> None:
    recent = RecentLatencies(100)
    for hundredth in range(200):
        recent.add(float(hundredth))
    assert recent.quantile(0.95) == pytest.approx(195)
