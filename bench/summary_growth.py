"""Measures whether a summary takes longer with more stored points: five thousand against five million.

It starts a redis-server and stores both sets over the same 30 days, as one type each. It measures two things
of both types in turn, without a cache: requests to the API, whose windows end now, and `aggregate` of the
store alone, without HTTP. The number of hours and minutes in a window depends on the time of day at its end.
The windows of the store end at `SECONDS_PAST_MIDNIGHT`, where this number is largest. Run it from the
checkout::

    python -m bench.summary_growth
    python -m bench.summary_growth --points 5000 500000 --rounds 200
"""

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.cold_hour import summary_request
from bench.contestants import OURS
from bench.figures import markdown
from bench.load import Client
from bench.processes import running_redis
from bench.rounds import Bench, WrongAnswerError, bench
from bench.works import LIMITS
from src.analytics.columns import POINT_DTYPE, columns_of
from src.analytics.points import Point
from src.analytics.window import DAY_US, Window
from src.resilience.clock import SystemClock
from src.storage.metrics.store import RedisMetricStore
from src.storage.redis.link import RedisAddress, RedisLink, connect

DAYS = 30
SECONDS_PAST_MIDNIGHT = 1
"""The end of the windows, today in UTC. They then consist of yesterday's hours and minutes, and of points."""
BATCH = 10_000
READS_OF_ALL = 3
WINDOW_SECONDS = {"all": None, "daily": 24 * 3600, "hourly": 3600}


class StoppedClock(SystemClock):
    """A system clock whose time of day is always `unix_seconds`."""

    def __init__(self, unix_seconds: float) -> None:
        self._unix_seconds = unix_seconds

    def now(self) -> float:
        """Return `unix_seconds`."""
        return self._unix_seconds


@dataclass(slots=True)
class Growth:
    """The results of the measurement.

    Attributes:
        counts: Points stored, by size.
        seconds: Median time of a summary of each size in the store alone, by period.
        ratios: How many times longer the last size takes than the first in the store alone, by period: the
            median of what that was in each round.
        request_seconds: Median time of a request for a summary of each size, by period.
        request_ratios: How many times longer the request for the last size takes than for the first.
        bytes_a_point: What Redis needs for a point, by size.
        read_all_seconds: Median time of reading every point of the last size, and of adding up the values.
    """

    counts: list[int]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    request_seconds: dict[str, list[float]] = field(default_factory=dict)
    request_ratios: dict[str, float] = field(default_factory=dict)
    bytes_a_point: list[float] = field(default_factory=list)
    read_all_seconds: float = 0.0

    @property
    def worst_request(self) -> float:
        """The ratio of the requests for the period that grows most."""
        return max(self.request_ratios.values())

    @property
    def worst_in_store(self) -> float:
        """The ratio in the store alone of the period that grows most."""
        return max(self.ratios.values())


def points_of(name: str, count: int, now_us: int, seed: int) -> Iterator[list[Point]]:
    """Yield batches with a total of `count` points, evenly over 30 days, with log-normal values."""
    draw = random.Random(seed)
    start, step = now_us - DAYS * DAY_US, DAYS * DAY_US / count
    for first in range(0, count, BATCH):
        yield [
            Point(name, start + round((number + draw.random()) * step), draw.lognormvariate(3.0, 0.5))
            for number in range(first, min(first + BATCH, count))
        ]


def names_of(counts: list[int]) -> list[str]:
    """Return the name of the type of each size."""
    return [f"points-{count}" for count in counts]


async def memory_bytes(link: RedisLink) -> int:
    """Return the memory that Redis reports as used."""
    info: bytes = await link.send("INFO", "memory")
    return int(info.split(b"used_memory:")[1].split()[0])


async def measure(socket: Path, counts: list[int], rounds: int) -> Growth:
    """Load, and time the store alone."""
    clock, growth = SystemClock(), Growth(counts)
    now_us = (int(clock.now() * 1e6) // DAY_US + 1) * DAY_US + SECONDS_PAST_MIDNIGHT * 1_000_000
    time_source = f"local function now_us() return {now_us} end"
    async with aclosing(RedisLink(connect(RedisAddress(f"unix://{socket}")), clock)) as link:
        store = RedisMetricStore(link, StoppedClock(now_us / 1e6), time_source=time_source)
        names = names_of(counts)
        for seed, (name, count) in enumerate(zip(names, counts, strict=True)):
            before = await memory_bytes(link)
            for batch in points_of(name, count, now_us, seed):
                await store.add(columns_of(batch))
            growth.bytes_a_point.append((await memory_bytes(link) - before) / count)
        for period, window_seconds in WINDOW_SECONDS.items():
            window = None if window_seconds is None else Window.rolling(now_us, window_seconds)
            turns = await time_in_turn(store, names, window, rounds)
            growth.seconds[period], growth.ratios[period] = medians(turns, names)
        reads = [await time_read_of_all(link, names[-1], counts[-1]) for _ in range(READS_OF_ALL)]
        growth.read_all_seconds = statistics.median(reads)
    return growth


async def time_in_turn(
    store: RedisMetricStore, names: list[str], window: Window | None, rounds: int
) -> list[dict[str, float]]:
    """Return the seconds of `aggregate` by type, for each round. Every other round has the reverse order."""
    clock = SystemClock()
    turns: list[dict[str, float]] = []
    for number in range(rounds):
        turns.append({})
        for name in names if number % 2 else reversed(names):
            started = clock.monotonic()
            aggregate = await store.aggregate(name, window)
            aggregate.sketch.quantile(0.5)
            aggregate.sketch.quantile(0.95)
            aggregate.sketch.quantile(0.99)
            turns[-1][name] = clock.monotonic() - started
    return turns


def time_requests(port: int, growth: Growth, rounds: int) -> None:
    """Time requests for the summaries of each size, in turn, and put the results into `growth`."""
    clock, names = SystemClock(), names_of(growth.counts)
    with Client(port) as client:
        for period in WINDOW_SECONDS:
            turns: list[dict[str, float]] = []
            for number in range(rounds):
                turns.append({})
                for name in names if number % 2 else reversed(names):
                    request = summary_request(f"type={name}&period={period}")
                    started = clock.monotonic()
                    answer = client.send(request)
                    turns[-1][name] = clock.monotonic() - started
                    if answer.status != 200:
                        raise WrongAnswerError(f"{OURS.name} answers {request.path} with {answer}")
            growth.request_seconds[period], growth.request_ratios[period] = medians(turns, names)


def medians(turns: list[dict[str, float]], names: list[str]) -> tuple[list[float], float]:
    """Return the median of each type, and the median ratio of the last type to the first."""
    ratio = statistics.median(turn[names[-1]] / turn[names[0]] for turn in turns)
    return [statistics.median(turn[name] for turn in turns) for name in names], ratio


async def time_read_of_all(link: RedisLink, name: str, count: int) -> float:
    """Return the seconds for reading every point of a type, hour by hour, and adding up the values."""
    clock = SystemClock()
    started = clock.monotonic()
    total, seen = 0.0, 0
    keys: list[bytes] = await link.send("KEYS", f"m:{{{name}}}:r:*")
    for key in keys:
        points = np.frombuffer(await link.send("GET", key), dtype=POINT_DTYPE)
        total += float(points["value"].sum())
        seen += len(points)
    assert seen == count, f"{seen} points were found of {count}"
    return clock.monotonic() - started


def run(bench: Bench, counts: list[int], rounds: int) -> Growth:
    """Measure on a redis-server of its own.

    Args:
        bench: Starts the API.
        counts: The sizes.
        rounds: Timings of each.
    """
    with running_redis() as server:
        growth = asyncio.run(measure(server.socket, counts, rounds))
        with bench.served(OURS, {**LIMITS, "REDIS_URL": server.url}) as ours:
            time_requests(ours.port, growth, rounds)
    return growth


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, nargs="+", default=[5_000, 5_000_000], help="sizes to compare")
    parser.add_argument("--rounds", type=int, default=300, help="timings of each size")
    options = parser.parse_args()
    with bench(rounds=1, seconds=1, peers=Path(sys.executable)) as everything:
        growth = run(everything, options.points, options.rounds)
    heads = ["summary", *(f"{count:,} points" for count in growth.counts), "ratio"]
    rows = [
        [f"{period}, {kind}", *(f"{1000 * some:.3f} ms" for some in seconds[period]), f"{ratios[period]:.2f}"]
        for kind, seconds, ratios in (
            ("request", growth.request_seconds, growth.request_ratios),
            ("store", growth.seconds, growth.ratios),
        )
        for period in seconds
    ]
    rows.append(["bytes of Redis a point", *(f"{some:.0f}" for some in growth.bytes_a_point), ""])
    print(markdown(heads, rows))
    print(f"\nTo read all {growth.counts[-1]:,} points: {growth.read_all_seconds:.2f} s")


if __name__ == "__main__":
    main()
