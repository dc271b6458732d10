"""The overview as JSON."""

import json

import pytest

from src.analytics.sketch import find_bin
from src.api.routes.overview import overview_out
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.services.overview.counter_store import CounterSnapshot, MemoryCounterStore
from src.services.overview.service import OverviewService
from src.services.simulated_faults import SimulatedFaults

MOST_DECIMALS = 3


async def test_numbers_are_rounded(clock):
    counts = CounterSnapshot(
        {"hits": 1, "misses": 2, "requests": 3, "round_trips": 3, "round_trip_us": 1000},
        {find_bin(0.0123): 3},
    )
    store = MemoryCounterStore(clock)
    await store.add(counts)
    await clock.advance(1)
    breaker = CircuitBreaker("external-service", MemoryBreakerStore(clock), CircuitBreakerOptions(), clock)
    await breaker.run(succeed)
    await breaker.run(succeed)
    with pytest.raises(ConnectionError):
        await breaker.run(fail)

    service = OverviewService(store, breaker, memory_bytes, faults, clock)
    shown = overview_out(await service.get()).model_dump_json(exclude={"generated_at"})
    await service.aclose()

    figures: list[str] = []
    json.loads(shown, parse_float=figures.append)
    assert {"0.333"} <= set(figures)
    assert [figure for figure in figures if len(figure.partition(".")[2]) > MOST_DECIMALS] == []


async def succeed() -> None:
    pass


async def fail() -> None:
    raise ConnectionError


async def memory_bytes() -> int | None:
    return None


async def faults() -> SimulatedFaults:
    return SimulatedFaults(0.25, 0)
