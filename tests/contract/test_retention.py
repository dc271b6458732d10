"""The contract of retention: what is too old vanishes from every view at once, and nothing else."""

import asyncio

import pytest

from src.analytics.points import Point
from src.services.errors import StorageUnavailableError
from src.services.metrics.lifecycle import (
    MAX_RULES,
    SWEEP_SECONDS,
    LifecycleService,
    RetentionRules,
    RetentionSweeper,
    TooManyRulesError,
)
from src.storage.metrics.lifecycle.retention import RedisRetention
from src.storage.metrics.store import RedisMetricStore
from tests.contract.conftest import TEST_TIME, StoreTime
from tests.contract.test_deletion import of_host
from tests.contract.test_metric_store import DAY, HOUR, NOW, add, points, seen
from tests.support.clock import settle
from tests.support.metric_model import MemoryMetricStore, MemoryRetention


class Deleting:
    """A lifecycle service with its store, and the types whose summaries it dropped."""

    def __init__(self, store_time: StoreTime, default_seconds: int = 0) -> None:
        link, clock = store_time.link, store_time.clock
        self.store = (
            MemoryMetricStore(clock) if link is None else RedisMetricStore(link, clock, time_source=TEST_TIME)
        )
        self.retention = MemoryRetention(clock) if link is None else RedisRetention(link)
        self.discarded: list[str] = []
        self.lifecycle = LifecycleService(self.store, self.retention, default_seconds, self._discard)

    async def _discard(self, name: str) -> None:
        self.discarded.append(name)


@pytest.fixture
async def deleting(store_time: StoreTime) -> Deleting:
    return Deleting(store_time)


async def test_without_rules_everything_is_kept(deleting):
    await add(deleting.store, points((0, 1.0)))
    await deleting.lifecycle.sweep()
    assert seen(await deleting.store.newest("cpu", 10)) == [(0, 1.0)]
    assert deleting.discarded == []


async def test_a_rule_holds_for_points_that_are_stored_already(deleting):
    await add(deleting.store, [*points((NOW - 2 * DAY, 1.0), (NOW, 2.0)), Point("mem", NOW - 2 * DAY, 3.0)])
    await deleting.lifecycle.set_rule("cpu", 86_400)
    assert await deleting.lifecycle.rules() == {"cpu": 86_400}
    assert seen(await deleting.store.newest(None, 10)) == [(NOW, 2.0), (NOW - 2 * DAY, 3.0)]
    assert (await deleting.store.aggregate("cpu", None)).rollup.total == 2.0
    assert deleting.discarded == ["cpu"]


async def test_a_type_of_which_all_is_too_old_is_gone_and_leaves_room_for_another(deleting):
    await add(deleting.store, points((NOW - 2 * DAY, 1.0)))
    await deleting.lifecycle.set_rule("*", 86_400)
    assert await deleting.store.types() == []


async def test_a_series_of_which_all_is_too_old_is_gone(deleting):
    await add(deleting.store, [*of_host("a", (NOW - 2 * DAY, 1.0)), *of_host("b", (NOW, 2.0))])
    await deleting.lifecycle.set_rule("cpu", 86_400)
    assert await deleting.store.series("cpu") == [({"host": "b"}, 1)]


async def test_points_are_kept_until_their_hour_is_too_old(deleting, store_time):
    await add(deleting.store, points((NOW, 1.0), (NOW + HOUR - 1, 2.0), (NOW + HOUR, 3.0)))
    await store_time.advance(2 * 3600 - 1)
    await deleting.lifecycle.set_rule("cpu", 3600)
    assert (await deleting.store.aggregate("cpu", None)).rollup.count == 3
    await store_time.advance(1)
    await deleting.lifecycle.sweep()
    assert seen(await deleting.store.newest("cpu", 10)) == [(NOW + HOUR, 3.0)]


async def test_a_rule_that_is_removed_or_says_0_deletes_nothing(store_time):
    deleting = Deleting(store_time, default_seconds=86_400)
    await deleting.lifecycle.set_rule("cpu*", 0)
    await add(deleting.store, points((NOW - 2 * DAY, 1.0)))
    await deleting.lifecycle.sweep()
    assert (await deleting.store.aggregate("cpu", None)).rollup.count == 1
    assert await deleting.lifecycle.remove_rule("cpu*")
    assert (await deleting.store.aggregate("cpu", None)).rollup.count == 0, "the default holds again"
    assert not await deleting.lifecycle.remove_rule("cpu*")


async def test_there_are_not_more_rules_than_there_may_be(deleting):
    for n in range(MAX_RULES):
        await deleting.lifecycle.set_rule(f"type-{n}", 60)
    with pytest.raises(TooManyRulesError):
        await deleting.lifecycle.set_rule("cpu", 60)
    await deleting.lifecycle.set_rule("type-7", 61)
    assert len(await deleting.lifecycle.rules()) == MAX_RULES


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("cpu", 1),
        ("cpu.user", 2),
        ("cpu.user.x", 3),
        ("cp", 5),
        ("mem", 6),
        ("memory", 5),
        ("c", 5),
        ("disk.a", 0),
    ],
)
def test_the_longest_pattern_wins_and_a_name_before_a_prefix(name, seconds):
    rules = {"cpu": 1, "cpu*": 2, "cpu.user.*": 3, "*": 5, "mem": 6, "disk*": 0}
    assert RetentionRules(rules, 7).seconds_for(name) == seconds
    assert RetentionRules({}, 7).seconds_for(name) == 7


@pytest.mark.parametrize("backend", ["fakeredis", "redis"])
async def test_a_type_with_foreign_values_does_not_stop_the_sweep_of_others(deleting, store_time, caplog):
    old = NOW - 2 * DAY
    await add(deleting.store, [Point(name, old, 1.0) for name in ("a", "broken", "c", "unreadable")])
    await store_time.link.send("SET", "m:{broken}:p:all", "foreign")
    await store_time.link.send("SET", "m:{unreadable}:hours", "foreign")
    await deleting.lifecycle.set_rule("*", 86_400)
    assert await deleting.store.newest("a", 1) == await deleting.store.newest("c", 1) == []
    assert {record.type for record in caplog.records if hasattr(record, "reason")} >= {"unreadable"}


async def test_of_several_workers_one_sweeps_at_a_time(store_time):
    workers = [Deleting(store_time, default_seconds=86_400) for _ in range(3)]
    if store_time.link is None:
        for worker in workers[1:]:
            worker.retention = workers[0].retention
    assert [await worker.retention.take_turn(SWEEP_SECONDS) for worker in workers] == [True, False, False]


async def test_the_sweeper_sweeps_and_survives_an_outage(store_time, clock):
    deleting = Deleting(store_time, default_seconds=86_400)
    await add(deleting.store, points((NOW - 2 * DAY, 1.0)))
    attempts = []

    class Turn:
        async def take_turn(self, seconds):
            attempts.append(seconds)
            if len(attempts) == 1:
                raise StorageUnavailableError("away")
            return True

    sweeper = RetentionSweeper(deleting.lifecycle, Turn(), clock)
    sweeper.start()
    await settle()
    assert (await deleting.store.aggregate("cpu", None)).rollup.count == 1
    await clock.advance(SWEEP_SECONDS)
    async with asyncio.timeout(5):
        while (await deleting.store.aggregate("cpu", None)).rollup.count:
            await asyncio.sleep(0.001)
    await sweeper.aclose()
