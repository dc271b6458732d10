"""Time and chance under a test's control: the library's own, and what only this suite has a use for."""

import itertools
from collections.abc import Iterable

from src.resilience.testing import FakeClock, FakeRandomizer, settle

__all__ = ["CyclingRandomizer", "FakeClock", "FakeRandomizer", "settle"]


class CyclingRandomizer:
    """A `Randomizer` that draws the numbers it was given over and over."""

    def __init__(self, draws: Iterable[float]) -> None:
        self._draws = itertools.cycle(draws)

    def random(self) -> float:
        return next(self._draws)
