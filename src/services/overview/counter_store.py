"""The sums of the workers' counts: the port, a store for one worker, and the failover between two stores.

The store's clock divides time into seconds. A count belongs to the second in which it arrives, and a reading
covers the last `WINDOW_SECONDS` whole seconds.
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
"""The time for which a worker counts as live after its last report."""

CounterName = Literal[
    "requests", "errors", "points",
    "allowed", "refused", "bypassed",
    "hits", "misses", "stale",
    "round_trips", "round_trip_us",
    "lab_calls",
]  # fmt: skip
"""The names of the counters."""


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """The counts of an interval. Snapshots can be added.

    Attributes:
        values: The value of each counter; a missing counter is 0. `round_trip_us` is the total time of the
            round trips in µs.
        latencies: The number of requests in each bin. A `LogBinSketch` of the durations in seconds has these
            bins.
    """

    values: Mapping[CounterName, int] = field(default_factory=dict)
    latencies: Mapping[int, int] = field(default_factory=dict)

    def __getitem__(self, name: CounterName) -> int:
        return self.values.get(name, 0)

    def __add__(self, other: "CounterSnapshot") -> "CounterSnapshot":
        return CounterSnapshot(
            Counter(self.values) + Counter(other.values), Counter(self.latencies) + Counter(other.latencies)
        )

    def latency_ms(self, q: float) -> float | None:
        """Return the quantile `q` (0 to 1) of the durations, within 1 %; None without requests."""
        seconds = LogBinSketch.from_counts(self.latencies, 0.0, math.inf).quantile(q)
        return None if seconds is None else round(1000 * seconds, 3)


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of the fleet's store.

    Attributes:
        began_at: The beginning, as a monotonic reading.
        kind: "unavailable" if Redis does not reply, "refuses" if it rejects commands.
    """

    began_at: float
    kind: Literal["unavailable", "refuses"]


@dataclass(frozen=True, slots=True)
class CounterReading:
    """The counts of the last whole window.

    Attributes:
        counts: The counts.
        workers: The number of live workers.
        outage: The outage of the fleet's store, during which the counts are those of this worker alone; None
            if the counts are those of the fleet.
    """

    counts: CounterSnapshot
    workers: int
    outage: Outage | None = None

    def per_second(self, name: CounterName) -> float:
        """Return the mean of a counter per second."""
        return self.counts[name] / WINDOW_SECONDS


class CounterStore(Protocol):
    """The sums of snapshots."""

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
        clock: Divides time into seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: dict[int, CounterSnapshot] = {}
        self._reported_at = -math.inf

    async def add(self, counts: CounterSnapshot) -> None:
        """Add the counts of this worker."""
        self._reported_at = self._clock.monotonic()
        second = int(self._reported_at)
        self._drop_before(second - WINDOW_SECONDS)
        self._seconds[second] = self._seconds.get(second, CounterSnapshot()) + counts

    async def read(self) -> CounterReading:
        """Return the last whole window."""
        now = self._clock.monotonic()
        second = int(now)
        self._drop_before(second - WINDOW_SECONDS)
        whole_seconds = (counts for at, counts in self._seconds.items() if at < second)
        is_live = now - self._reported_at < LIVE_SECONDS
        return CounterReading(sum(whole_seconds, CounterSnapshot()), int(is_live))

    def _drop_before(self, second: int) -> None:
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
        """Add the counts of this worker."""
        await self._local.add(counts)
        try:
            await self._fleet.add(counts)
        except StorageUnavailableError as error:
            self._update_outage(error)
        else:
            if self._outage is not None:
                self._outage = None
                _log.warning("counters_shared_again")

    async def read(self) -> CounterReading:
        """Return the last whole window, of the fleet or of this worker."""
        reading = None
        try:
            reading = await self._fleet.read()
        except StorageUnavailableError as error:
            self._update_outage(error)
        # A store that rejects writes can be read, but its counts are old.
        if reading is not None and self._outage is None:
            return reading
        local = await self._local.read()
        return CounterReading(local.counts, 1, self._outage)

    def _update_outage(self, error: StorageUnavailableError) -> None:
        is_refusal = isinstance(error, StorageRefusedError)
        kind: Literal["unavailable", "refuses"] = "refuses" if is_refusal else "unavailable"
        if self._outage is None:
            _log.warning("counters_local")
            self._outage = Outage(self._clock.monotonic(), kind)
        elif self._outage.kind != kind:
            self._outage = Outage(self._outage.began_at, kind)
