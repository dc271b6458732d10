"""The counts of the proxy's requests: collected by a worker, added up in a store."""

import asyncio

import pytest

from src.services.errors import StorageUnavailableError
from src.services.proxy.totals import FLUSH_SECONDS, ProxyCounters, ProxyTotals


class Totals:
    """A `ProxyTotalsStore` in memory that can be made unavailable."""

    def __init__(self):
        self.fleet = ProxyTotals()
        self.added = []
        self.is_away = False

    async def add(self, totals):
        if self.is_away:
            raise StorageUnavailableError("away")
        self.added.append(totals)
        self.fleet += totals
        return self.fleet


def work(tally):
    tally.count_request()
    tally.count_result("successes", 0.2)
    tally.count_request()
    tally.count_result("cache_hits", 0.1)
    tally.count_request()


async def test_counts_are_sent_in_batches(clock):
    store = Totals()
    tally = ProxyCounters(store, clock)
    work(tally)
    await clock.advance(FLUSH_SECONDS)
    assert store.added == [ProxyTotals(requests=3, successes=1, cache_hits=1, latency_us=300_000)]


async def test_the_mean_is_over_all_answered_requests(clock):
    tally = ProxyCounters(Totals(), clock)
    assert (await tally.totals()).mean_latency_ms is None
    work(tally)
    assert (await tally.totals()).mean_latency_ms == pytest.approx(150)


def test_the_mean_is_shown_without_the_noise_of_floating_point():
    assert 36_900 / 1000 / 3 != 12.3
    assert ProxyTotals(requests=3, successes=3, latency_us=36_900).mean_latency_ms == 12.3
    assert ProxyTotals(requests=3, successes=3, latency_us=1_000_000).mean_latency_ms == 333.333


async def test_totals_are_those_of_all_workers_and_include_unsent_counts(clock):
    store = Totals()
    one, other = ProxyCounters(store, clock), ProxyCounters(store, clock)
    work(one)
    await one.totals()
    work(other)
    assert (await other.totals()).requests == 6
    assert (await one.totals()).requests == 6


async def test_while_the_store_is_unavailable_no_count_is_lost(clock):
    store = Totals()
    tally = ProxyCounters(store, clock)
    work(tally)
    await tally.totals()
    store.is_away = True
    work(tally)
    await clock.advance(FLUSH_SECONDS)
    assert (await tally.totals()).requests == 6
    assert store.fleet.requests == 3
    store.is_away = False
    tally.count_request()
    await clock.advance(FLUSH_SECONDS)
    assert store.fleet.requests == 7


async def test_closing_sends_the_remaining_counts(clock):
    store = Totals()
    tally = ProxyCounters(store, clock)
    work(tally)
    await tally.aclose()
    assert store.fleet.requests == 3


async def test_a_cancelled_batch_is_not_lost(clock):
    store = Totals()
    begun = asyncio.Event()

    async def hang(totals):
        begun.set()
        await asyncio.Event().wait()

    tally = ProxyCounters(store, clock)
    work(tally)
    store.add = hang
    sending = asyncio.create_task(tally.totals())
    await begun.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    del store.add
    assert (await tally.totals()).requests == 3
