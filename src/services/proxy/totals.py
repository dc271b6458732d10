"""The results of the proxy's requests, counted over all workers and all restarts.

No request waits for its count. A worker collects counts and adds them to the totals a few times a second.
While the store is unavailable, the worker continues to collect. If the reply to a batch is lost, the batch
may be counted twice.
"""

import asyncio
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Literal, Protocol

from src.resilience.clock import Clock
from src.services.errors import StorageUnavailableError

RequestResult = Literal["successes", "failures", "fallbacks", "cache_hits"]

FLUSH_SECONDS = 0.25
"""The time for which counts are collected before they are sent."""


@dataclass(frozen=True, slots=True)
class ProxyTotals:
    """Counts of requests.

    Attributes:
        requests: All requests. A request that still waits, or whose caller has left, has no result.
        successes: Requests that the upstream answered, client errors (4xx) included.
        failures: Requests that were answered with an error of the proxy.
        fallbacks: Requests that were answered with a stale copy instead of an error.
        cache_hits: Requests that were answered with a fresh copy.
        latency_us: Time from the arrival of a request to the head of its answer, in µs, summed over all
            requests with a result.
    """

    requests: int = 0
    successes: int = 0
    failures: int = 0
    fallbacks: int = 0
    cache_hits: int = 0
    latency_us: int = 0

    def __add__(self, other: "ProxyTotals") -> "ProxyTotals":
        return ProxyTotals(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def mean_latency_ms(self) -> float | None:
        """The mean time from arrival to answer, in whole microseconds; None before the first answer."""
        answered = self.successes + self.failures + self.fallbacks + self.cache_hits
        return round(self.latency_us / answered) / 1000 if answered else None


class ProxyTotalsStore(Protocol):
    """Holds the totals of all workers."""

    async def add(self, totals: ProxyTotals) -> ProxyTotals:
        """Add `totals` to those of all workers, and return the sum.

        Raises:
            StorageUnavailableError: The store is unavailable.
        """
        ...


class ProxyCounters:
    """The counts of one worker.

    Args:
        store: Holds the totals of all workers.
        clock: Measures `FLUSH_SECONDS`.
    """

    def __init__(self, store: ProxyTotalsStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._unsent = ProxyTotals()
        self._sent = ProxyTotals()
        self._flusher: asyncio.Task[None] | None = None

    def count_request(self) -> None:
        """Count a request that has arrived."""
        self._add(ProxyTotals(requests=1))

    def count_result(self, result: RequestResult, latency_seconds: float) -> None:
        """Count the result of a request."""
        self._add(ProxyTotals(**{result: 1}, latency_us=round(latency_seconds * 1e6)))

    async def totals(self) -> ProxyTotals:
        """Return the totals of all workers; while the store is unavailable, those known here."""
        with suppress(StorageUnavailableError):
            await self._flush()
        return self._sent + self._unsent

    async def aclose(self) -> None:
        """Send the remaining counts and stop."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self.totals()

    def _add(self, totals: ProxyTotals) -> None:
        self._unsent += totals
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        await self._clock.sleep(FLUSH_SECONDS)
        with suppress(StorageUnavailableError):  # the next count starts another attempt
            await self._flush()

    async def _flush(self) -> None:
        batch, self._unsent = self._unsent, ProxyTotals()
        try:
            self._sent = await self._store.add(batch)
        except BaseException:
            self._unsent += batch
            raise
