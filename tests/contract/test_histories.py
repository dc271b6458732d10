"""Random histories of two workers: whatever happened, both say what the model of the store says."""

import asyncio
from itertools import permutations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.analytics.columns import columns_of
from src.analytics.points import Point, labels_text
from src.services.metrics.ingest import Idempotency, IdempotencyKeyReusedError
from src.services.metrics.lifecycle import LifecycleService
from src.storage.metrics.lifecycle.retention import RedisRetention
from src.storage.metrics.store import Caps, RedisMetricStore
from tests.contract.conftest import TEST_TIME, StoreTime
from tests.contract.test_metric_store import DAY, HOUR, MINUTE, on_redis
from tests.support.examples import examples
from tests.support.metric_model import MemoryMetricStore, MemoryRetention
from tests.support.metric_views import views

NAMES = "abc"
LABELS = [{}, {"host": "a"}, {"host": "b"}, {"host": "a", "disk": "x"}, {"disk": "x"}]
CAPS = st.sampled_from([Caps(2, 2), Caps(2, 3), Caps(3, 4)])
MINUTE_SKETCH_SECONDS = 26 * 3600

# An instant is a distance from now, or from the beginning of this hour or day.
INSTANTS = st.tuples(
    st.sampled_from([1, HOUR, DAY]),
    st.one_of(
        st.integers(-2, 2),
        st.integers(-26 * HOUR, HOUR),
        st.integers(-26 * 60, 60).flatmap(lambda n: st.integers(-1, 1).map(lambda d: n * MINUTE + d)),
    ),
)
VALUES = st.integers(-(2**20), 2**20).map(lambda n: n / 8)  # so that sums are exact in any order
POINTS = st.tuples(st.sampled_from(NAMES), st.sampled_from(LABELS), INSTANTS, VALUES)
BATCHES = st.lists(
    st.tuples(POINTS, st.sampled_from([1, 1, 1, 2, 40, 600])), min_size=1, max_size=5
)  # each point so many times
WORKERS = st.sampled_from([0, 1])
KEYS = st.one_of(
    st.none(), st.builds(Idempotency, key=st.sampled_from("kl"), fingerprint=st.sampled_from("fg"))
)
FILTERS = st.sampled_from([None, *({"host": frozenset(some)} for some in ("a", "ab", "z")),
                           {"host": frozenset("a"), "disk": frozenset("x")}])  # fmt: skip
PATTERNS = st.sampled_from([*NAMES, "a*", "*"])
STEPS = st.one_of(
    st.tuples(st.just("add"), WORKERS, BATCHES, KEYS),
    st.tuples(st.just("add one"), WORKERS, POINTS),
    st.tuples(st.just("race"), st.lists(BATCHES, min_size=2, max_size=3)),
    st.tuples(st.just("delete"), WORKERS, st.sampled_from(NAMES), FILTERS, st.one_of(st.none(), INSTANTS)),
    st.tuples(st.just("fold"), WORKERS, st.sampled_from(NAMES)),
    st.tuples(st.just("set rule"), PATTERNS, st.sampled_from([0, 3600, 7200, 86_400])),
    st.tuples(st.just("remove rule"), PATTERNS),
    st.tuples(st.just("sweep"), WORKERS),
    st.tuples(st.just("advance"), st.one_of(st.integers(1, 20_000), st.just(86_400))),
    st.tuples(st.just("shift clock"), st.integers(-90_000, 90_000)),
)


class History:
    """Takes the same steps with the stores of two workers and with the model, and compares the results.

    Args:
        time: The time of all of them.
        caps: The caps of all of them.
    """

    def __init__(self, time: StoreTime, caps: Caps) -> None:
        self.time = time
        self.stores = [RedisMetricStore(time.link, time.clock, caps, time_source=TEST_TIME) for _ in range(2)]
        self.rules = [
            LifecycleService(store, RedisRetention(time.link), 0, _discard) for store in self.stores
        ]
        self.model_rules = MemoryRetention(time.clock)
        self.model = MemoryMetricStore(time.clock, caps)

    async def take(self, kind, *arguments) -> None:
        """Take a step."""
        await getattr(self, f"_{kind.replace(' ', '_')}")(*arguments)

    async def assert_same_views(self) -> None:
        now = self._now()
        expected = await views(self.model, NAMES, now)
        for store in self.stores:
            assert await views(store, NAMES, now) == expected

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()

    async def _add(self, worker, batch, key) -> None:
        points = self._points(batch)
        ours = await outcome(self.stores[worker], points, key)
        assert ours == await outcome(self.model, points, key)

    async def _add_one(self, worker, point) -> None:
        (only,) = self._points([(point, 1)])
        assert field(await self.stores[worker].add_one(only)) == field(await self.model.add_one(only))

    async def _race(self, batches) -> None:
        """Add all batches at the same time. The results must be those of one order of the batches."""
        batches = [self._points(batch) for batch in batches]
        results = await asyncio.gather(
            *(outcome(self.stores[n % 2], batch) for n, batch in enumerate(batches))
        )
        listed = await points_of(self.stores[0])
        for order in permutations(range(len(batches))):
            model = self.model.copy()
            expected = {n: await outcome(model, batches[n]) for n in order}
            if results == [expected[n] for n in range(len(batches))] and listed == await points_of(model):
                self.model = model
                return
        raise AssertionError(f"no order of the batches explains {results}")

    async def _delete(self, worker, name, filters, instant) -> None:
        before = None if instant is None else self._instant(instant)
        deleted = await self.stores[worker].delete(name, filters, before)
        assert deleted == await self.model.delete(name, filters, before)

    async def _fold(self, worker, name) -> None:
        await self.stores[worker]._folder.fold_all(name)

    async def _set_rule(self, pattern, seconds) -> None:
        await self.rules[0].set_rule(pattern, seconds)
        await self._model_lifecycle().set_rule(pattern, seconds)

    async def _remove_rule(self, pattern) -> None:
        is_removed = await self.rules[1].remove_rule(pattern)
        assert is_removed == await self._model_lifecycle().remove_rule(pattern)

    async def _sweep(self, worker) -> None:
        await self.rules[worker].sweep()
        await self._model_lifecycle().sweep()

    async def _advance(self, seconds) -> None:
        await self.time.advance(seconds)
        await self._expire_sketches()

    async def _shift_clock(self, seconds) -> None:
        await self.time.shift(seconds)
        await self._expire_sketches()

    async def _expire_sketches(self) -> None:
        """Delete the sketches of minutes that are over for so long, as their expiry does."""
        for key in await self.time.link.send("KEYS", "m:*:p:m:*"):
            end_seconds = (int(key.rpartition(b":")[2]) + 1) * 60
            if end_seconds + MINUTE_SKETCH_SECONDS <= self.time.clock.now():
                await self.time.link.send("DEL", key)

    def _model_lifecycle(self) -> LifecycleService:
        return LifecycleService(self.model, self.model_rules, 0, _discard)

    def _now(self) -> int:
        return round(self.time.clock.now() * 1e6)

    def _instant(self, instant) -> int:
        unit, distance = instant
        return self._now() // unit * unit + distance

    def _points(self, batch) -> list[Point]:
        """Return the points, some of them many times: with values and timestamps that differ a little."""
        return [
            Point(name, self._instant(instant) + n % 3, value + n, labels_text(labels))
            for (name, labels, instant, value), times in batch
            for n in range(times)
        ]


async def _discard(_name: str) -> None:
    """Drop no cached summaries: there are none."""


def field(rejection) -> str | None:
    return None if rejection is None else rejection.field


async def outcome(store, points, key=None) -> object:
    """Store points; return whether they are new and which are rejected, or that the key was reused."""
    try:
        is_new, rejected = await store.add(columns_of(points), key)
    except IdempotencyKeyReusedError:
        return "key reused"
    return is_new, sorted((each.point_index, each.field) for each in rejected)


async def points_of(store) -> dict[str, list[Point]]:
    """Return the points of each type, newest first."""
    return {name: [stored.point for stored in await store.newest(name, 100_000)] for name in NAMES}


@on_redis
@settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(CAPS, st.lists(STEPS, max_size=12))
async def test_after_any_history_two_workers_say_what_the_model_says(backend, store_time, caps, steps):
    await store_time.link.send("FLUSHALL")
    await store_time.publish()
    history = History(store_time, caps)
    for step in steps:
        await history.take(*step)
    await history.assert_same_views()
    for name in NAMES:
        await history.stores[0].delete(name)
    assert await store_time.link.send("KEYS", "m:*") == []
    assert await store_time.link.send("ZCARD", "types") == 0
    await history.aclose()
