"""Measures the cost of deletions, and the longest time for which they block Redis and the event loop.

It starts a redis-server, stores a type with labels, and deletes points without HTTP: those of one series, of
half of the series, of the older half of the time, and of the whole type. Another type has a million points in
one minute. Run it from the checkout::

    python -m bench.deletion
    python -m bench.deletion --points 2000000 --series 1000
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.figures import markdown
from bench.processes import running_redis
from src.analytics.columns import PointColumns
from src.analytics.points import labels_text
from src.analytics.window import HOUR_US, MINUTE_US
from src.resilience.clock import SystemClock
from src.storage.metrics.series.series_folder import SeriesFolder
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import RedisAddress, RedisLink, connect

HOURS = 6
BATCH = 10_000
DENSE_POINTS = 1_000_000
STARTED_US = 1_800_000_000_000_000
LOOP_SECONDS = 0.001
"""The time between two checks of the event loop."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one deletion.

    Attributes:
        name: The deleted points, in words.
        stored: The number of points that were stored before.
        deleted: The number of points that were deleted.
        seconds: The duration of the deletion.
        script_ms: The longest run of a script in Redis.
        cpu_seconds: CPU time of the worker, including its threads.
        held_ms: The most CPU time that the event loop used between two checks. Unlike the elapsed time, it
            does not depend on the other load of the machine.
    """

    name: str
    stored: int
    deleted: int
    seconds: float
    cpu_seconds: float
    script_ms: float
    held_ms: float

    def row(self) -> list[str]:
        """Return the row of the table."""
        return [
            self.name, f"{self.stored:,}", f"{self.deleted:,}", f"{1e6 * self.seconds / self.stored:.2f} µs",
            f"{1e6 * self.cpu_seconds / self.stored:.2f} µs",
            f"{self.script_ms:.1f} ms", f"{self.held_ms:.1f} ms",
        ]  # fmt: skip


def batches(name: str, points: int, series: int, span_us: int) -> Iterator[PointColumns]:
    """Yield `points` in order of time, evenly over `span_us` and over all series."""
    texts = [labels_text({"host": f"host-{number}"}) for number in range(series)]
    draw = np.random.default_rng(7)
    for first in range(0, points, BATCH):
        places = np.arange(first, min(first + BATCH, points))
        timestamps = STARTED_US + places * span_us // points
        labels = [texts[place % series] for place in places.tolist()] if series else None
        yield PointColumns(name, places - first, timestamps, draw.lognormal(3.0, 0.5, len(places)), labels)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[list[float]]:
    """Yield a list of one number: the most CPU seconds that the event loop used between two checks."""
    longest = [0.0]

    async def watch() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(LOOP_SECONDS)
            now = time.thread_time()
            longest[0] = max(longest[0], now - last)
            last = now

    watching = asyncio.create_task(watch())
    try:
        yield longest
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def longest_command_ms(link: RedisLink) -> float:
    """Return the duration of the longest command in Redis since the last call of this function."""
    entries = await link.send("SLOWLOG", "GET", -1)
    await link.send("SLOWLOG", "RESET")
    return max((entry[2] / 1000 for entry in entries), default=0.0)


async def delete(
    link: RedisLink, store: RedisMetricStore, label: str, name: str, stored: int, **which: object
) -> Cost:
    """Delete points and return the cost."""
    await longest_command_ms(link)
    async with watched_loop() as longest:
        started, cpu_started = time.perf_counter(), time.process_time()
        deleted = await store.delete(name, **which)  # type: ignore[arg-type]
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    script_ms = await longest_command_ms(link)
    return Cost(label, stored, deleted, seconds, cpu_seconds, script_ms, 1000 * longest[0])


async def measure(socket: Path, points: int, series: int) -> list[Cost]:
    """Store and delete points, and return the cost of each deletion."""
    clock = SystemClock()
    costs: list[Cost] = []
    async with aclosing(RedisLink(connect(RedisAddress(f"unix://{socket}")), clock)) as link:
        await link.send("CONFIG", "SET", "slowlog-log-slower-than", 500)
        await link.send("CONFIG", "SET", "slowlog-max-len", 10_000)
        store, folder = RedisMetricStore(link, clock), SeriesFolder(link)

        async def fill(name: str, count: int, series: int, span_us: int) -> None:
            for batch in batches(name, count, series, span_us):
                await store.add([batch])
            for hour in await link.send("HKEYS", f"m:{{{name}}}:u"):
                await folder.fold(name, int(hour))

        def hosts(count: int) -> Mapping[str, frozenset[str]]:
            return {"host": frozenset(f"host-{number}" for number in range(count))}

        await fill("cpu", points, series, HOURS * HOUR_US)
        left = points
        for label, which in (
            ("one series", {"filters": hosts(1)}),
            ("half the series", {"filters": hosts(series // 2)}),
            ("older half", {"before_us": STARTED_US + HOURS * HOUR_US // 2 + HOUR_US // 2}),
            ("whole type", {}),
        ):
            costs.append(await delete(link, store, label, "cpu", left, **which))
            left -= costs[-1].deleted
        for label, which in (("half of a dense minute", {"filters": hosts(50)}), ("dense minute", {})):
            await fill("dense", DENSE_POINTS, 100, MINUTE_US)
            costs.append(await delete(link, store, label, "dense", DENSE_POINTS, **which))
            await store.delete("dense")
        await store.aclose()
    return costs


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=2_000_000, help="points of the type with labels")
    parser.add_argument("--series", type=int, default=1_000, help="series of the type with labels")
    options = parser.parse_args()
    with running_redis() as server:
        costs = asyncio.run(measure(server.socket, options.points, options.series))
    heads = [
        "deleted",
        "stored",
        "deleted",
        "a stored point",
        "CPU of it",
        "longest script",
        "event loop held",
    ]
    print(markdown(heads, [cost.row() for cost in costs]))


if __name__ == "__main__":
    main()
