"""The sums of the workers' counts: the port, a store for one worker, and the failover between two stores.

The store's clock divides time into seconds. A count belongs to the second in which it arrives, and a reading
covers the last `WINDOW_SECONDS` whole seconds. Figures therefore change every second and cover ten.
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
"""A worker that has not reported for so long is not counted."""

Tally = Literal[
    "requests", "errors", "points",
    "allowed", "refused", "bypassed",
    "hits", "misses", "stale",
    "round_trips", "round_trip_us",
    "lab_calls",
]  # fmt: skip
"""The names of the counts."""


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """The counts of an interval. Snapshots can be added.

    Attributes:
        tallies: The counts by name; a missing name is 0. `round_trip_us` is the sum of the round trips in µs.
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
        """Return a quantile (0 to 1) of the durations, within 1 %, in ms to the µs; None without requests."""
        seconds = LogBinSketch.of_counts(self.latencies, 0.0, math.inf).quantile(q)
        return None if seconds is None else round(1000 * seconds, 3)


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
        """Return the mean count each second."""
        return self.counts[tally] / WINDOW_SECONDS


class CounterStore(Protocol):
    """Adds snapshots up."""

    async def add(self, counts: CounterSnapshot) -> None:
        """Add the counts of this worker, and register the worker as live.

        Raises:
            StorageUnavailableError: The store is unavailable. The counts may have been added or not.
        """
        ...

    async def read(self) -> CounterReading:
        """Return the last whole window.

        Raises:
            StorageUnavailableError: The store is unavailable.
        """
        ...


class MemoryCounterStore:
    """A `CounterStore` of one worker. It is always available.

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
    """A `CounterStore` that reads `fleet`, or `local` while `fleet` is unavailable.

    Both stores get all counts. The fleet's store loses the counts of an outage: when it is available again,
    the seconds of those counts are over.

    Args:
        fleet: The store of all workers.
        local: The store of this worker.
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
        """Return the last whole window, of the fleet or of this worker."""
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
