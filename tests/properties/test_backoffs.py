"""Backoffs stay within their bounds for all options and random numbers."""

from hypothesis import given
from hypothesis import strategies as st

from src.resilience.retry import (
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    Linear,
)

SECONDS = st.floats(0.001, 100.0)
GROWING = st.one_of(
    st.builds(Linear, SECONDS, SECONDS),
    st.builds(Exponential, SECONDS, SECONDS, st.floats(1.0, 10.0)),
)
BACKOFFS = st.one_of(
    st.builds(Fixed, st.floats(0.0, 100.0)),
    GROWING,
    st.builds(FullJitter, GROWING),
    st.builds(EqualJitter, GROWING),
    st.builds(DecorrelatedJitter, SECONDS, SECONDS),
)
DRAWS = st.floats(0.0, 1.0, exclude_max=True)


class Draws:
    """A randomizer with numbers from hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def random(self) -> float:
        return self._data.draw(DRAWS)


def longest(backoff: Backoff) -> float:
    """Return the upper bound of a backoff's delays."""
    if isinstance(backoff, Fixed):
        return backoff.seconds
    if isinstance(backoff, (FullJitter, EqualJitter)):
        return longest(backoff.backoff)
    return backoff.cap_seconds


@given(backoff=BACKOFFS, data=st.data())
def test_delays_stay_within_their_bounds(backoff: Backoff, data: st.DataObject):
    randomizer, previous = Draws(data), 0.0
    for attempt in (1, 2, 3, 10, 5000):
        previous = backoff.delay(attempt, previous, randomizer)

        assert 0 <= previous <= longest(backoff)
