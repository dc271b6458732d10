"""The counters of one worker, and the task that adds them to the fleet's once a second.

`WorkerCounters` observes requests, writes, decisions and round trips, at the latest at the end of the loop's
tick. `CounterFlusher` takes the counts every `FLUSH_SECONDS` and adds them to a `CounterStore`, which holds
the sums over all workers. No request waits for a flush.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from src.analytics.sketch import find_bin
from src.observation.request_record import RequestRecord
from src.resilience.clock import Clock
from src.resilience.events import CacheAnswered, Event
from src.services.access.admission import AdmissionOutcome
from src.services.overview.counter_store import CounterName, CounterSnapshot, CounterStore

FLUSH_SECONDS = 1.0

_CACHE_COUNTERS: Final[dict[str, CounterName]] = {
    "hit": "hits",
    "updating": "stale",  # the X-Cache of such a summary is STALE too
    "miss": "misses",
    "stale": "stale",
}


class WorkerCounters:
    """The counts of one worker since the last call of `take`. Each method takes at most about 1 µs.

    Args:
        cache: The name of the cache whose answers are counted.
        untimed_routes: Routes without a latency count, since the client determines their duration.
    """

    def __init__(self, *, cache: str, untimed_routes: frozenset[str] = frozenset()) -> None:
        self._cache = cache
        self._untimed_routes = untimed_routes
        self._values: Counter[CounterName] = Counter()
        self._latencies: Counter[int] = Counter()

    def observe_requests(self, requests: Sequence[RequestRecord]) -> None:
        """Count answered requests."""
        self._values["requests"] += len(requests)
        for request in requests:
            if request.status >= 500:
                self._values["errors"] += 1
            if request.route not in self._untimed_routes:
                self._latencies[find_bin(request.seconds)] += 1

    def observe_writes(self, writes: Sequence[int]) -> None:
        """Count the points of writes that were stored."""
        self._values["points"] += sum(writes)

    def observe_decisions(self, outcomes: Mapping[AdmissionOutcome, int]) -> None:
        """Count requests that the limiter allowed, rejected, or admitted without a decision."""
        for outcome, times in outcomes.items():
            self._values[outcome] += times

    def observe_round_trip(self, commands: int, seconds: float) -> None:  # noqa: ARG002
        """Count one round trip to Redis."""
        self._values["round_trips"] += 1
        self._values["round_trip_us"] += round(seconds * 1e6)

    def count_lab_call(self) -> None:
        """Count one finished call of the lab."""
        self._values["lab_calls"] += 1

    def __call__(self, event: Event) -> None:
        """Count the answers of the cache: the instance is a listener."""
        if isinstance(event, CacheAnswered) and event.policy == self._cache:
            self._values[_CACHE_COUNTERS[event.outcome]] += event.times

    def take(self) -> CounterSnapshot:
        """Return the counts since the last call of this method."""
        counts = CounterSnapshot(self._values, self._latencies)
        self._values, self._latencies = Counter(), Counter()
        return counts


class CounterFlusher:
    """Adds the counts of a worker to a store, every `FLUSH_SECONDS`.

    Args:
        counters: The counters of the worker.
        store: The store of the sums; it must work without Redis.
        clock: The clock for the flushes.
    """

    def __init__(self, counters: WorkerCounters, store: CounterStore, clock: Clock) -> None:
        self._counters = counters
        self._store = store
        self._clock = clock
        self._flusher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that flushes, on the running event loop."""
        self._flusher = asyncio.create_task(self._flush_continuously())

    async def aclose(self) -> None:
        """Stop. Counts since the last flush are lost."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)

    async def _flush_continuously(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self._store.add(self._counters.take())
