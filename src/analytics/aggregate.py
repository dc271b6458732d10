"""The summary of a set of points."""

from typing import NamedTuple

from src.analytics.rollup import Rollup
from src.analytics.sketch import LogBinSketch


class Aggregate(NamedTuple):
    """The rollup and the sketch of the same points."""

    rollup: Rollup
    sketch: LogBinSketch

    @classmethod
    def empty(cls) -> "Aggregate":
        """Return the summary of no points."""
        return cls(Rollup.empty(), LogBinSketch.from_values([]))
