"""Clocks and random numbers for tests: those of the library, and those for this suite only."""

import itertools
from collections.abc import Iterable

from src.resilience.testing import FakeClock, FakeRandomizer, settle

__all__ = ["CyclingRandomizer", "FakeClock", "FakeRandomizer", "settle"]


class CyclingRandomizer:
    """A `Randomizer` that returns the given numbers in a cycle."""

    def __init__(self, draws: Iterable[float]) -> None:
        self._draws = itertools.cycle(draws)

    def random(self) -> float:
        return next(self._draws)
