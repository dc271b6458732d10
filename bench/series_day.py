"""Measures a day of a thousand series with a point every ten seconds: the memory, and the time of summaries.

The timestamps are generated, so that the benchmark does not take a day. The summaries cover the last 24 hours
without a cache: one over all series by a label that each series has, and one for each single series.
"""

from dataclasses import dataclass
from statistics import median

import orjson

from bench.cold_hour import summary_request
from bench.load import send
from bench.memory import Footprint, storage, ticks
from bench.rounds import Bench, WrongAnswerError
from bench.works import SERIES
from src.resilience.clock import SystemClock

TICK_SECONDS = 10
TICKS = 24 * 3600 // TICK_SECONDS
READS_A_ROUND = 4


@dataclass(frozen=True, slots=True)
class SeriesDay:
    """The results of the measurement.

    Attributes:
        footprint: The storage per point.
        matching_seconds: Median time of the summary of all series that have a label.
        groups_seconds: Median time of the summary by series.
    """

    footprint: Footprint
    matching_seconds: float
    groups_seconds: float


def measure(bench: Bench, share: float = 1.0) -> SeriesDay:
    """Store the day, and measure summaries of it.

    Args:
        bench: Starts the API.
        share: The share of the day to store; below 1 for a quick run.
    """
    count = round(TICKS * share)
    reads = READS_A_ROUND * bench.rounds
    with storage(bench) as stored:
        footprint = stored.footprint(ticks(stored, "day", count, TICK_SECONDS), count * SERIES)
        matching = [_read(stored.port, "label=site:one", groups=0) for _ in range(reads)]
        groups = [_read(stored.port, "group_by=host", groups=SERIES) for _ in range(reads)]
    return SeriesDay(footprint, median(matching), median(groups))


def _read(port: int, query: str, groups: int) -> float:
    """Return the duration in seconds of a summary, which must have `groups` groups."""
    clock = SystemClock()
    began = clock.monotonic()
    answer = send(summary_request(f"type=day&period=daily&{query}"), port)
    took = clock.monotonic() - began
    if answer.status != 200 or len(orjson.loads(answer.body).get("groups", ())) != groups:
        raise WrongAnswerError(f"{query} is answered with {answer}")
    return took
