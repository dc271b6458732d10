"""The counters of one worker, and the task that adds them to the fleet's once a second.

`WorkerCounters` observes requests, writes, decisions and round trips, at the latest at the end of the loop's
tick. `CounterFlusher` takes the counts every `FLUSH_SECONDS` and adds them to a `CounterStore`, which holds
the sums over all workers. No request waits for a flush.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from src.analytics.sketch import bin_of
from src.observation.request_record import RequestRecord
from src.resilience.clock import Clock
from src.resilience.events import CacheAnswered, Event
from src.services.access.admission import Outcome
from src.services.overview.counter_store import CounterSnapshot, CounterStore, Tally

FLUSH_SECONDS = 1.0

_CACHE_TALLIES: Final[dict[str, Tally]] = {
    "hit": "hits",
    "updating": "stale",  # what the summary's X-Cache says too
    "miss": "misses",
    "stale": "stale",
}


class WorkerCounters:
    """One worker's counts since they were last taken. Each method costs about a microsecond at most.

    Args:
        cache: Name of the cache whose answers count.
        untimed_routes: Routes whose duration the client chooses; their latency is not counted.
    """

    def __init__(self, *, cache: str, untimed_routes: frozenset[str] = frozenset()) -> None:
        self._cache = cache
        self._untimed_routes = untimed_routes
        self._tallies: Counter[Tally] = Counter()
        self._latencies: Counter[int] = Counter()

    def observe_requests(self, requests: Sequence[RequestRecord]) -> None:
        """Count answered requests."""
        self._tallies["requests"] += len(requests)
        for request in requests:
            if request.status >= 500:
                self._tallies["errors"] += 1
            if request.route not in self._untimed_routes:
                self._latencies[bin_of(request.seconds)] += 1

    def observe_writes(self, writes: Sequence[int]) -> None:
        """Count the points of writes that were stored."""
        self._tallies["points"] += sum(writes)

    def observe_decisions(self, outcomes: Mapping[Outcome, int]) -> None:
        """Count requests that the limiter allowed, rejected, or let through without a decision."""
        for outcome, times in outcomes.items():
            self._tallies[outcome] += times

    def observe_round_trip(self, commands: int, seconds: float) -> None:  # noqa: ARG002
        """Count one round trip to Redis."""
        self._tallies["round_trips"] += 1
        self._tallies["round_trip_us"] += round(seconds * 1e6)

    def count_lab_call(self) -> None:
        """Count one finished call of the lab."""
        self._tallies["lab_calls"] += 1

    def __call__(self, event: Event) -> None:
        """Count the answers of the cache: the instance is a listener."""
        if isinstance(event, CacheAnswered) and event.policy == self._cache:
            self._tallies[_CACHE_TALLIES[event.outcome]] += event.times

    def take(self) -> CounterSnapshot:
        """Return what was counted since this was last called."""
        counts = CounterSnapshot(self._tallies, self._latencies)
        self._tallies, self._latencies = Counter(), Counter()
        return counts


class CounterFlusher:
    """Adds the counts of a worker to a store, every `FLUSH_SECONDS`.

    Args:
        counters: The counters of the worker.
        store: The store of the sums; it must work without Redis.
        clock: Paces the flushes.
    """

    def __init__(self, counters: WorkerCounters, store: CounterStore, clock: Clock) -> None:
        self._counters = counters
        self._store = store
        self._clock = clock
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that flushes, on the running event loop."""
        self._reporting = asyncio.create_task(self._report_on())

    async def aclose(self) -> None:
        """Stop. Counts since the last flush are lost."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)

    async def _report_on(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self._store.add(self._counters.take())
