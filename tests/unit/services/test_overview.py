"""The overview: concurrent callers share one read, and none waits for the external service."""

import asyncio
from dataclasses import dataclass, field

import pytest

from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.services.external_service import ExternalServiceUnavailableError
from src.services.overview.counter_store import CounterSnapshot, MemoryCounterStore
from src.services.overview.service import FAILURE_RATE_INTERVAL_SECONDS, REUSE_SECONDS, OverviewService
from src.services.simulated_faults import SimulatedFaults
from tests.support.clock import settle
from tests.unit.services.test_health_status import PROXY_OPEN


@dataclass
class OverviewSources:
    """The sources of an overview, set by a test."""

    memory: int | None = 1_234_567
    failure_rate: float | Exception = 0.25
    asked: int = 0
    failure_rate_asked: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def memory_bytes(self) -> int | None:
        self.asked += 1
        await self.goes_on.wait()
        return self.memory

    async def faults(self) -> SimulatedFaults:
        self.failure_rate_asked += 1
        await self.answers.wait()
        if isinstance(self.failure_rate, Exception):
            raise self.failure_rate
        return SimulatedFaults(self.failure_rate, 0)


@pytest.fixture
def parts() -> OverviewSources:
    parts = OverviewSources()
    parts.goes_on.set()
    parts.answers.set()
    return parts


@pytest.fixture
def counter_snapshots(clock) -> MemoryCounterStore:
    return MemoryCounterStore(clock)


@pytest.fixture
def breaker(clock) -> CircuitBreaker:
    return CircuitBreaker("external-service", MemoryBreakerStore(clock), CircuitBreakerOptions(), clock)


@pytest.fixture
async def service(parts, counter_snapshots, breaker, clock):
    service = OverviewService(counter_snapshots, breaker, parts.memory_bytes, parts.faults, clock)
    yield service
    await service.aclose()


async def test_the_overview_has_every_member(service, counter_snapshots, clock):
    await counter_snapshots.add(CounterSnapshot({"requests": 20}))
    await clock.advance(1)
    found = await service.get()
    assert found.counters.counts["requests"] == 20
    assert found.breaker.name == "external-service"
    assert found.memory_bytes == 1_234_567
    assert found.proxy is None
    assert found.status.code == "ALL_WELL"
    assert found.read_at == clock.now()


async def test_the_status_follows_from_the_figures(service, breaker):
    await breaker.force_open()
    assert (await service.get()).status.code == "BREAKER_OPEN"


async def test_the_overview_includes_the_proxy_if_there_is_one(parts, counter_snapshots, breaker, clock):
    async def proxy():
        return PROXY_OPEN

    service = OverviewService(
        counter_snapshots, breaker, parts.memory_bytes, parts.faults, clock, proxy=proxy
    )
    found = await service.get()
    assert (found.proxy, found.status.code) == (PROXY_OPEN, "PROXY_BREAKER_OPEN")
    await service.aclose()


async def test_concurrent_callers_share_one_read(service, parts):
    parts.goes_on.clear()
    asking = [asyncio.create_task(service.get()) for _ in range(50)]
    await settle()
    parts.goes_on.set()
    assert len({id(found) for found in await asyncio.gather(*asking)}) == 1
    assert parts.asked == 1


async def test_an_overview_is_reused_for_half_a_second(service, parts, clock):
    first = await service.get()
    clock.jump(REUSE_SECONDS - 0.01)
    assert await service.get() is first
    clock.jump(0.01)
    assert await service.get() is not first
    assert parts.asked == 2


async def test_a_caller_that_leaves_does_not_affect_other_callers(service, parts):
    parts.goes_on.clear()
    leaving, staying = asyncio.create_task(service.get()), asyncio.create_task(service.get())
    await settle()
    leaving.cancel()
    await settle()
    parts.goes_on.set()
    assert (await staying).memory_bytes == 1_234_567
    assert leaving.cancelled()
    assert parts.asked == 1


async def test_a_failed_overview_is_not_reused(service, parts, monkeypatch):
    async def broken():
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(service, "_memory_bytes", broken)
    with pytest.raises(RuntimeError):
        await service.get()
    monkeypatch.setattr(service, "_memory_bytes", parts.memory_bytes)
    assert (await service.get()).memory_bytes == 1_234_567


async def test_an_overview_does_not_wait_for_the_external_service(service, parts, clock):
    parts.answers.clear()
    assert (await service.get()).failure_rate is None
    parts.answers.set()
    await settle()
    clock.jump(REUSE_SECONDS)
    assert (await service.get()).failure_rate == 0.25


async def test_the_failure_rate_is_requested_every_two_seconds_on_demand(service, parts, clock):
    for _ in range(9):  # at 0, 0.5, … 4 s
        await service.get()
        await settle()
        clock.jump(REUSE_SECONDS)
    assert parts.failure_rate_asked == 1 + 4 / FAILURE_RATE_INTERVAL_SECONDS
    clock.jump(3600)
    assert parts.failure_rate_asked == 3


async def test_the_failure_rate_of_a_silent_service_is_unknown(service, parts, clock):
    await service.get()
    await settle()
    parts.failure_rate = ExternalServiceUnavailableError()
    for _ in range(2):
        clock.jump(FAILURE_RATE_INTERVAL_SECONDS)
        found = await service.get()
        await settle()
    assert found.failure_rate is None


async def test_closing_cancels_running_reads(service, parts):
    parts.goes_on.clear()
    asking = asyncio.create_task(service.get())
    await settle()
    await service.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asking
