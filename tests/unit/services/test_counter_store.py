"""Snapshots of counters, and the store that uses local counts while the fleet's store is unavailable."""

import logging

import pytest

from src.analytics.sketch import find_bin
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.services.overview.counter_store import (
    CounterReading,
    CounterSnapshot,
    FailoverCounterStore,
    MemoryCounterStore,
    Outage,
)


class FleetStore:
    """A store of the fleet with errors set by a test."""

    def __init__(self) -> None:
        self.add_error: Exception | None = None
        self.read_error: Exception | None = None
        self.snapshots: list[CounterSnapshot] = []

    async def add(self, counts):
        if self.add_error is not None:
            raise self.add_error
        self.snapshots.append(counts)

    async def read(self):
        if self.read_error is not None:
            raise self.read_error
        return CounterReading(CounterSnapshot({"requests": 99}), 2)


@pytest.fixture
def fleet() -> FleetStore:
    return FleetStore()


@pytest.fixture
def store(fleet, clock) -> FailoverCounterStore:
    return FailoverCounterStore(fleet, MemoryCounterStore(clock), clock)


def test_snapshots_can_be_added():
    total = CounterSnapshot({"requests": 1}, {7: 1}) + CounterSnapshot(
        {"requests": 2, "errors": 1}, {7: 2, 8: 1}
    )
    assert (total.values, total.latencies) == ({"requests": 3, "errors": 1}, {7: 3, 8: 1})
    assert total["points"] == 0


def test_a_latency_covers_all_snapshots():
    slow, fast = (
        CounterSnapshot(latencies={find_bin(2.0): 1}),
        CounterSnapshot(latencies={find_bin(0.01): 99}),
    )
    assert (slow + fast).latency_ms(0.99) == pytest.approx(10, rel=0.01)
    assert (slow + fast).latency_ms(1) == pytest.approx(2000, rel=0.01)
    assert CounterSnapshot(latencies={find_bin(0.0): 1}).latency_ms(0.5) == 0


def test_rates_are_per_second():
    assert CounterReading(CounterSnapshot({"points": 25}), 1).per_second("points") == 2.5


async def test_while_the_fleet_store_is_available_it_is_read(store):
    await store.add(CounterSnapshot({"requests": 1}))
    reading = await store.read()
    assert (reading.counts["requests"], reading.workers, reading.outage) == (99, 2, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StorageUnavailableError("gone"), "unavailable"), (StorageRefusedError("full"), "refuses")],
)
async def test_while_the_fleet_store_rejects_writes_the_local_counts_are_read(
    store, fleet, clock, error, kind
):
    fleet.add_error = error
    await store.add(CounterSnapshot({"requests": 1}))
    clock.jump(4)
    reading = await store.read()  # the shared store would still answer this call
    assert (reading.counts["requests"], reading.workers) == (1, 1)
    assert reading.outage == Outage(0.0, kind)
    fleet.add_error = None
    await store.add(CounterSnapshot())
    assert (await store.read()).outage is None


async def test_a_failed_read_is_reported_too(store, fleet, clock):
    await store.add(CounterSnapshot({"requests": 5}))
    clock.jump(1)
    fleet.read_error = StorageUnavailableError("gone")
    reading = await store.read()
    assert (reading.counts["requests"], reading.outage) == (5, Outage(1.0, "unavailable"))


async def test_an_outage_lasts_from_its_first_error_even_if_its_kind_changes(store, fleet, clock):
    fleet.add_error = StorageUnavailableError("gone")
    await store.add(CounterSnapshot())
    clock.jump(2)
    fleet.add_error = StorageRefusedError("loading")
    await store.add(CounterSnapshot())
    assert (await store.read()).outage == Outage(0.0, "refuses")


async def test_counts_of_an_outage_are_not_sent_later(store, fleet):
    fleet.add_error = StorageUnavailableError("gone")
    for _ in range(100):
        await store.add(CounterSnapshot({"requests": 1}))
    fleet.add_error = None
    await store.add(CounterSnapshot({"requests": 1}))
    assert [counts["requests"] for counts in fleet.snapshots] == [1]


async def test_each_outage_is_logged_once(store, fleet, caplog):
    with caplog.at_level(logging.WARNING):
        for error in (StorageUnavailableError("gone"), StorageUnavailableError("gone"), None, None):
            fleet.add_error = error
            await store.add(CounterSnapshot())
    assert [record.message for record in caplog.records] == ["counters_local", "counters_shared_again"]
