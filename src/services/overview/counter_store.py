"""Where the workers' counts come together: the port, its form for one worker alone, and the two joined.

Time is divided into seconds, those of the store's clock. A count belongs to the second in which it arrives;
what is read is the last `WINDOW_SECONDS` whole ones. So figures move every second, and each stands for ten.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from src.analytics.sketch import LogBinSketch
from src.resilience.clock import Clock
from src.services.errors import StorageRefusedError, StorageUnavailableError

_log = logging.getLogger(__name__)

WINDOW_SECONDS = 10
LIVE_SECONDS = 3
"""A worker that has not been heard of for so long does not count."""

Tally = Literal[
    "requests", "errors", "points",
    "allowed", "refused", "bypassed",
    "hits", "misses", "stale",
    "round_trips", "round_trip_us",
    "lab_calls",
]  # fmt: skip
"""What is counted."""


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """What was counted in some time. Beats add up.

    Attributes:
        tallies: How many; what is not named is 0. `round_trip_us` is time in µs, summed over the round trips.
        latencies: How many requests, by the sketch bin of the seconds they took.
    """

    tallies: Mapping[Tally, int] = field(default_factory=dict)
    latencies: Mapping[int, int] = field(default_factory=dict)

    def __getitem__(self, tally: Tally) -> int:
        return self.tallies.get(tally, 0)

    def __add__(self, other: "CounterSnapshot") -> "CounterSnapshot":
        return CounterSnapshot(
            Counter(self.tallies) + Counter(other.tallies), Counter(self.latencies) + Counter(other.latencies)
        )

    def latency_ms(self, q: float) -> float | None:
        """Return a quantile (0 to 1) of how long requests took, within 1 %; None of no requests."""
        seconds = LogBinSketch.of_counts(self.latencies, 0.0, math.inf).quantile(q)
        return None if seconds is None else 1000 * seconds


@dataclass(frozen=True, slots=True)
class Outage:
    """Why the fleet's counts can't be had: since when, by the monotonic clock, and what Redis does."""

    began_at: float
    kind: Literal["away", "refuses"]


@dataclass(frozen=True, slots=True)
class CounterReading:
    """The last whole window.

    Attributes:
        counts: All that was counted in it.
        workers: How many have been heard of lately.
        outage: None: it is the fleet's. Else it is this worker's alone.
    """

    counts: CounterSnapshot
    workers: int
    outage: Outage | None = None

    def per_second(self, tally: Tally) -> float:
        """Return how many there were a second."""
        return self.counts[tally] / WINDOW_SECONDS


class CounterStore(Protocol):
    """Adds snapshots up."""

    async def add(self, counts: CounterSnapshot) -> None:
        """Add what this worker has counted, and be heard of.

        Raises:
            StorageUnavailableError: The store is away. Whether it was added is not known.
        """
        ...

    async def read(self) -> CounterReading:
        """Return the last whole window.

        Raises:
            StorageUnavailableError: The store is away.
        """
        ...


class MemoryCounterStore:
    """A `CounterStore` of one worker. It is never away.

    Args:
        clock: Says which second it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: dict[int, CounterSnapshot] = {}
        self._heard_at = -math.inf

    async def add(self, counts: CounterSnapshot) -> None:
        """Add what this worker has counted."""
        self._heard_at = self._clock.monotonic()
        second = int(self._heard_at)
        self._forget_before(second - WINDOW_SECONDS)
        self._seconds[second] = self._seconds.get(second, CounterSnapshot()) + counts

    async def read(self) -> CounterReading:
        """Return the last whole window."""
        now = self._clock.monotonic()
        second = int(now)
        self._forget_before(second - WINDOW_SECONDS)
        whole = (counts for at, counts in self._seconds.items() if at < second)
        return CounterReading(sum(whole, CounterSnapshot()), int(now - self._heard_at < LIVE_SECONDS))

    def _forget_before(self, second: int) -> None:
        for at in [at for at in self._seconds if at < second]:
            del self._seconds[at]


class FailoverCounterStore:
    """A `CounterStore` that reads `fleet`, and while that is away `local`.

    Counts go to both. What the fleet's store does not take is lost to it: by the time it is back, the seconds
    they belong to are over.

    Args:
        fleet: Of all workers.
        local: Of this one.
        clock: Measures outages.
    """

    def __init__(self, fleet: CounterStore, local: MemoryCounterStore, clock: Clock) -> None:
        self._fleet = fleet
        self._local = local
        self._clock = clock
        self._outage: Outage | None = None

    async def add(self, counts: CounterSnapshot) -> None:
        """Add what this worker has counted."""
        await self._local.add(counts)
        try:
            await self._fleet.add(counts)
        except StorageUnavailableError as error:
            self._note(error)
        else:
            self._note(None)

    async def read(self) -> CounterReading:
        """Return the last whole window, and of whom it is."""
        reading = None
        try:
            reading = await self._fleet.read()
        except StorageUnavailableError as error:
            self._note(error)
        if reading is not None and self._outage is None:  # a store that takes nothing has nothing to tell
            return reading
        local = await self._local.read()
        return CounterReading(local.counts, 1, self._outage)

    def _note(self, error: StorageUnavailableError | None) -> None:
        if error is None:
            if self._outage is not None:
                self._outage = None
                _log.warning("counters_shared_again")
            return
        kind: Literal["away", "refuses"] = "refuses" if isinstance(error, StorageRefusedError) else "away"
        if self._outage is None:
            _log.warning("counters_local")
            self._outage = Outage(self._clock.monotonic(), kind)
        elif self._outage.kind != kind:
            self._outage = Outage(self._outage.began_at, kind)
