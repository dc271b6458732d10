"""The fleet at a glance: everything an operator looks at first, read together.

Whoever asks gets a reading that is at most `REMEMBERED_SECONDS` old, and those who ask at the same time share
one: many open pages cost little more than one.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.store import BreakerStatus
from src.resilience.clock import Clock
from src.services.access.admission import WithoutStore
from src.services.external_service import ExternalServiceUnavailableError, SimulatedFaults
from src.services.overview.counter_store import CounterReading, CounterStore
from src.services.overview.health_status import Verdict, verdict
from src.services.proxy.service import ProxyStatus

REMEMBERED_SECONDS = 0.5

FAILURE_RATE_SECONDS = 2.0
"""How often the external service is asked how it misbehaves, while anybody looks."""


@dataclass(frozen=True, slots=True, eq=False)  # each is itself: what is made of one can be kept
class Overview:
    """The fleet at one moment.

    Attributes:
        read_at: When, as Unix time.
        verdict: What to say of it.
        counters: What was counted lately; while Redis is away, by this worker alone.
        breaker: The external service's circuit breaker.
        proxy: The state of the proxy; None if there is no proxy.
        memory_bytes: What Redis uses; None where it does not say.
        failure_rate: The external service's simulated one; None where it is not known.
        without_store: What the rate limiter does while Redis gives no verdict.
    """

    read_at: float
    verdict: Verdict
    counters: CounterReading
    breaker: BreakerStatus
    proxy: ProxyStatus | None
    memory_bytes: int | None
    failure_rate: float | None
    without_store: WithoutStore


class OverviewService:
    """Reads overviews.

    Args:
        counter_store: Knows what was counted; must never be away.
        breaker: The external service's circuit breaker.
        memory_bytes: Asks Redis how much it uses.
        faults: Asks the external service how it misbehaves. Nobody waits for the answer, which may come from
            another process: it is in a later overview.
        clock: Dates the readings.
        proxy: Returns the state of the proxy.
        without_store: What the rate limiter does while Redis gives no verdict.
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
        without_store: WithoutStore = "open",
    ) -> None:
        self._counter_store = counter_store
        self._breaker = breaker
        self._memory_bytes = memory_bytes
        self._faults = faults
        self._clock = clock
        self._proxy = proxy
        self._without_store: WithoutStore = without_store
        self._reading: asyncio.Task[Overview] | None = None
        self._read_at = -math.inf
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = -math.inf
        self._failure_rate: float | None = None

    async def get(self) -> Overview:
        """Return the fleet as it stands."""
        reading = self._reading
        if reading is None or (reading.done() and self._is_over(self._read_at, REMEMBERED_SECONDS)):
            reading = self._reading = asyncio.create_task(self._read())
        await asyncio.wait((reading,))  # a caller that leaves harms no other
        return reading.result()

    async def aclose(self) -> None:
        """Stop asking."""
        tasks = [task for task in (self._reading, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> Overview:
        # What takes the most steps to its first command begins first, so that all leave in one round trip.
        reading = asyncio.gather(
            self._read_proxy(), self._counter_store.read(), self._breaker.status(), self._memory_bytes()
        )
        self._ask_again()
        proxy, counters, breaker, memory_bytes = await reading
        now, self._read_at = self._clock.now(), self._clock.monotonic()
        policy = self._without_store
        said = verdict(counters, breaker, proxy, now=now, monotonic=self._read_at, without_store=policy)
        return Overview(now, said, counters, breaker, proxy, memory_bytes, self._failure_rate, policy)

    async def _read_proxy(self) -> ProxyStatus | None:
        return None if self._proxy is None else await self._proxy()

    def _ask_again(self) -> None:
        if self._asking is None or (
            self._asking.done() and self._is_over(self._asked_at, FAILURE_RATE_SECONDS)
        ):
            self._asking = asyncio.create_task(self._learn_failure_rate())

    async def _learn_failure_rate(self) -> None:
        try:
            self._failure_rate = (await self._faults()).failure_rate
        except ExternalServiceUnavailableError:
            self._failure_rate = None
        self._asked_at = self._clock.monotonic()

    def _is_over(self, since: float, seconds: float) -> bool:
        return self._clock.monotonic() - since >= seconds
