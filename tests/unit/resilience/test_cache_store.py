"""The checks of the cache options, and the behaviour of the memory store beyond the contract."""

import math
from dataclasses import fields

import pytest

from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from tests.support.clock import FakeClock


class TestMemoryStore:
    async def test_the_least_recently_used_key_is_evicted(self, clock: FakeClock):
        store, options = MemoryCacheStore(clock, max_entries=2), CacheOptions()

        async def fill(key: str) -> None:
            await store.take_lease(key, "t", 0, options)
            await store.fill(key, "t", key.encode(), options)

        await fill("a")
        await fill("b")
        await store.read("a", options)
        await fill("c")

        kept = [key for key in "abc" if await store.read(key, options) is not None]
        assert kept == ["a", "c"]

    def test_a_capacity_of_zero_is_rejected(self, clock: FakeClock):
        with pytest.raises(ValueError, match="max_entries"):
            MemoryCacheStore(clock, max_entries=0)


@pytest.mark.parametrize("option", [field.name for field in fields(CacheOptions)])
@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
def test_an_error_names_the_invalid_option(option: str, value: float):
    with pytest.raises(ValueError, match=option):
        CacheOptions(**{option: value})


@pytest.mark.parametrize("option", ["ttl_seconds", "lease_seconds", "computation_seconds"])
def test_a_duration_below_a_millisecond_is_rejected(option: str):
    with pytest.raises(ValueError, match=option):
        CacheOptions(**{option: 0.0009})
