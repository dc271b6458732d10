"""The overview of all workers: the main figures of the operator's page, read together.

An overview is reused for `REUSE_SECONDS`, and concurrent callers share one read. Many open pages therefore
cost little more than one open page.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from src.resilience.building_blocks.shared_tasks import SharedTasks
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.store import BreakerStatus
from src.resilience.clock import Clock
from src.services.access.admission import OutagePolicy
from src.services.external_service import ExternalServiceUnavailableError
from src.services.overview.counter_store import CounterReading, CounterStore
from src.services.overview.health_status import Finding, worst_finding
from src.services.proxy.service import ProxyStatus
from src.services.simulated_faults import SimulatedFaults

REUSE_SECONDS = 0.5
"""The time for which an overview is reused."""

FAILURE_RATE_INTERVAL_SECONDS = 2.0
"""The shortest time between two requests for the simulated failure rate."""


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that the rendered form can be cached
class Overview:
    """The state of all workers at one moment.

    Attributes:
        read_at: The moment, as Unix time in seconds.
        status: The most severe problem that the other attributes show, or that there is none.
        counters: The latest counts of all workers, or of this worker alone while Redis is unavailable.
        breaker: The state of the external service's circuit breaker.
        proxy: The state of the proxy; None if there is no proxy.
        memory_bytes: The memory that Redis uses; None if the amount is not known.
        failure_rate: The simulated failure rate of the external service; None if the rate is not known.
        outage_policy: The policy of the rate limiter while Redis is unavailable.
    """

    read_at: float
    status: Finding
    counters: CounterReading
    breaker: BreakerStatus
    proxy: ProxyStatus | None
    memory_bytes: int | None
    failure_rate: float | None
    outage_policy: OutagePolicy


class OverviewService:
    """Reads overviews.

    Args:
        counter_store: The store of the counts. Its reads must not fail while Redis is unavailable.
        breaker: The circuit breaker of the external service.
        memory_bytes: Returns the memory that Redis uses.
        faults: Requests the simulated faults from the external service. The request may be slow, so no
            overview waits for it. A later overview contains the failure rate.
        clock: Provides the times of the overviews, and measures their age.
        proxy: Returns the state of the proxy; None if there is no proxy.
        outage_policy: The policy of the rate limiter while Redis is unavailable.
    """

    def __init__(
        self,
        counter_store: CounterStore,
        breaker: CircuitBreaker,
        memory_bytes: Callable[[], Awaitable[int | None]],
        faults: Callable[[], Awaitable[SimulatedFaults]],
        clock: Clock,
        *,
        proxy: Callable[[], Awaitable[ProxyStatus]] | None = None,
        outage_policy: OutagePolicy = "open",
    ) -> None:
        self._counter_store = counter_store
        self._breaker = breaker
        self._memory_bytes = memory_bytes
        self._faults = faults
        self._clock = clock
        self._proxy = proxy
        self._outage_policy: OutagePolicy = outage_policy
        self._reads = SharedTasks[None, Overview](clock)
        self._latest: Overview | None = None
        self._latest_monotonic = -math.inf
        self._failure_rate_reads = SharedTasks[None, None](clock)
        self._failure_rate_monotonic = -math.inf
        self._failure_rate: float | None = None

    async def get(self) -> Overview:
        """Return an overview that is at most `REUSE_SECONDS` old."""
        if self._latest is not None and not self._has_passed(REUSE_SECONDS, self._latest_monotonic):
            return self._latest
        read = self._reads.get(None) or self._reads.begin(None, self._read())
        return await read.result()

    async def aclose(self) -> None:
        """Stop all reads."""
        await asyncio.gather(self._reads.aclose(), self._failure_rate_reads.aclose())

    async def _read(self) -> Overview:
        # All reads send their commands in one round trip. `_read_proxy` starts first, because it needs the
        # most steps before its first command.
        reads = asyncio.gather(
            self._read_proxy(), self._counter_store.read(), self._breaker.status(), self._memory_bytes()
        )
        self._begin_failure_rate_read()
        proxy, counters, breaker, memory_bytes = await reads
        now, self._latest_monotonic = self._clock.now(), self._clock.monotonic()
        policy = self._outage_policy
        status = worst_finding(
            counters, breaker, proxy, now=now, monotonic=self._latest_monotonic, outage_policy=policy
        )
        self._latest = Overview(
            now, status, counters, breaker, proxy, memory_bytes, self._failure_rate, policy
        )
        return self._latest

    async def _read_proxy(self) -> ProxyStatus | None:
        return None if self._proxy is None else await self._proxy()

    def _begin_failure_rate_read(self) -> None:
        reads = self._failure_rate_reads
        is_due = self._has_passed(FAILURE_RATE_INTERVAL_SECONDS, self._failure_rate_monotonic)
        if is_due and reads.get(None) is None:
            reads.begin(None, self._read_failure_rate())

    async def _read_failure_rate(self) -> None:
        try:
            self._failure_rate = (await self._faults()).failure_rate
        except ExternalServiceUnavailableError:
            self._failure_rate = None
        self._failure_rate_monotonic = self._clock.monotonic()

    def _has_passed(self, seconds: float, since: float) -> bool:
        return self._clock.monotonic() - since >= seconds
