"""What became of the proxy's requests, added up over all workers since the first of them.

Counting holds up no request: what a worker has counted gathers, and is added to the fleet's totals a batch at
a time. While the store is away it goes on gathering. A batch whose receipt was lost may count twice.
"""

import asyncio
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Literal, Protocol

from src.resilience.clock import Clock
from src.services.errors import StorageUnavailableError

Outcome = Literal["successes", "failures", "fallbacks", "cache_hits"]

GATHER_SECONDS = 0.25
"""How long figures gather before they are sent."""


@dataclass(frozen=True, slots=True)
class ProxyTotals:
    """Counts of requests.

    Attributes:
        requests: Taken in. Those that still wait, and those whose caller left, have come to nothing yet.
        successes: Answered by the upstream, errors of the client (4xx) included.
        failures: Answered with an error of the proxy.
        fallbacks: Answered with a stale copy in place of an error.
        cache_hits: Answered with a fresh copy.
        latency_us: Time from arrival to the head of the answer, in µs, added up over all that were answered.
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
        """Mean time from arrival to answer; None while nothing was answered."""
        answered = self.successes + self.failures + self.fallbacks + self.cache_hits
        return self.latency_us / 1000 / answered if answered else None


class ProxyTotalsStore(Protocol):
    """Where the workers add up."""

    async def add(self, totals: ProxyTotals) -> ProxyTotals:
        """Add `totals` to the fleet's and return what these are now.

        Raises:
            StorageUnavailableError: The store is away.
        """
        ...


class ProxyTally:
    """One worker's counting.

    Args:
        store: Where the fleet's totals are.
        clock: Paces the batches.
    """

    def __init__(self, store: ProxyTotalsStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._gathered = ProxyTotals()
        self._fleet = ProxyTotals()
        self._sender: asyncio.Task[None] | None = None

    def count_request(self) -> None:
        """Count a request that was taken in."""
        self._gather(ProxyTotals(requests=1))

    def count_answer(self, outcome: Outcome, latency_seconds: float) -> None:
        """Count what became of it."""
        self._gather(ProxyTotals(**{outcome: 1}, latency_us=round(latency_seconds * 1e6)))

    async def totals(self) -> ProxyTotals:
        """Return the fleet's totals; while the store is away, those last known and what was counted here."""
        with suppress(StorageUnavailableError):
            await self._send()
        return self._fleet + self._gathered

    async def aclose(self) -> None:
        """Stop, once what was gathered has been sent."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self.totals()

    def _gather(self, totals: ProxyTotals) -> None:
        self._gathered += totals
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_soon())

    async def _send_soon(self) -> None:
        await self._clock.sleep(GATHER_SECONDS)
        with suppress(StorageUnavailableError):  # the next count tries again
            await self._send()

    async def _send(self) -> None:
        sent, self._gathered = self._gathered, ProxyTotals()
        try:
            self._fleet = await self._store.add(sent)
        except BaseException:
            self._gathered += sent
            raise
