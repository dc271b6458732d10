"""The overview of the fleet: all figures that the operator's page shows first, read together.

An overview is reused for `REUSE_SECONDS`, and concurrent callers share one read. Many open pages therefore
cost little more than one.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

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

FAILURE_RATE_SECONDS = 2.0
"""The least time between two requests for the simulated failure rate."""


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that the rendered form can be cached
class Overview:
    """The state of the fleet at one moment.

    Attributes:
        read_at: The moment, as Unix time.
        status: The worst finding.
        counters: The latest counts; while Redis is unavailable, those of this worker alone.
        breaker: The state of the external service's circuit breaker.
        proxy: The state of the proxy; None if there is no proxy.
        memory_bytes: The memory that Redis uses; None if that is not known.
        failure_rate: The simulated failure rate of the external service; None if that is not known.
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
        counter_store: The store of the counts; it must always be available.
        breaker: The circuit breaker of the external service.
        memory_bytes: Returns the memory that Redis uses.
        faults: Requests the faults of the external service, which may be another process. No overview waits
            for the answer: the next overview contains it.
        clock: Dates the overviews.
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
        self._read_task: asyncio.Task[Overview] | None = None
        self._read_at = -math.inf
        self._faults_task: asyncio.Task[None] | None = None
        self._faults_read_at = -math.inf
        self._failure_rate: float | None = None

    async def get(self) -> Overview:
        """Return an overview that is at most `REUSE_SECONDS` old."""
        task = self._read_task
        if task is None or (task.done() and self._has_passed(REUSE_SECONDS, self._read_at)):
            task = self._read_task = asyncio.create_task(self._read())
        await asyncio.wait((task,))  # a cancelled caller does not cancel the shared task
        return task.result()

    async def aclose(self) -> None:
        """Stop all reads."""
        tasks = [task for task in (self._read_task, self._faults_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> Overview:
        # The read that needs the most steps before its first command comes first, so that the commands of all
        # reads are sent in one round trip.
        reads = asyncio.gather(
            self._read_proxy(), self._counter_store.read(), self._breaker.status(), self._memory_bytes()
        )
        self._start_faults_task()
        proxy, counters, breaker, memory_bytes = await reads
        now, self._read_at = self._clock.now(), self._clock.monotonic()
        policy = self._outage_policy
        status = worst_finding(
            counters, breaker, proxy, now=now, monotonic=self._read_at, outage_policy=policy
        )
        return Overview(now, status, counters, breaker, proxy, memory_bytes, self._failure_rate, policy)

    async def _read_proxy(self) -> ProxyStatus | None:
        return None if self._proxy is None else await self._proxy()

    def _start_faults_task(self) -> None:
        task = self._faults_task
        if task is None or (task.done() and self._has_passed(FAILURE_RATE_SECONDS, self._faults_read_at)):
            self._faults_task = asyncio.create_task(self._read_failure_rate())

    async def _read_failure_rate(self) -> None:
        try:
            self._failure_rate = (await self._faults()).failure_rate
        except ExternalServiceUnavailableError:
            self._failure_rate = None
        self._faults_read_at = self._clock.monotonic()

    def _has_passed(self, seconds: float, since: float) -> bool:
        return self._clock.monotonic() - since >= seconds
