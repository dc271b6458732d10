"""Measures the memory of Redis and the growth of its append-only file for each stored point.

The API stores generated points whose timestamps end now. The append-only file of its Redis is not rewritten.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from redis import Redis

from bench.contestants import OURS
from bench.load import Client, Request
from bench.points import BenchPoint, ndjson_request, single_request
from bench.processes import running_redis
from bench.rounds import Bench, WrongAnswerError
from bench.works import BATCH_POINTS, LIMITS, SERIES
from src.resilience.clock import SystemClock

DENSE_BATCHES = 1_000
"""Batches of one type, with a hundred points per second."""
SINGLES = 20_000
"""Points of one type, one per second."""
LABELLED_BATCHES = 1_800
"""Batches with one point of every series, one batch per second."""

SETTLE_SECONDS, SETTLED_SHARE, SETTLE_TRIES = 0.5, 0.001, 60
"""The memory is read once it no longer changes, since points are folded into blocks in the background."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The storage that points need.

    Attributes:
        memory_bytes: The memory of Redis per point.
        file_bytes: The growth of the append-only file per point.
    """

    memory_bytes: float
    file_bytes: float


class Storage:
    """A running API and its Redis.

    Args:
        redis: A client of the Redis.
        port: The port of the API.

    Attributes:
        port: As given.
    """

    def __init__(self, redis: Redis, port: int) -> None:
        self._redis = redis
        self.port = port
        self._clock = SystemClock()
        self._draw = Random(0)

    @property
    def now_us(self) -> int:
        """The current time, in µs since 1970."""
        return int(self._clock.now() * 1e6)

    def value(self) -> float:
        """Return a random value with a log-normal distribution, like latencies."""
        return self._draw.lognormvariate(3.0, 0.5)

    def footprint(self, requests: Iterator[Request], points: int) -> Footprint:
        """Send `requests`, which store `points` points, and return the storage that a point needs."""
        before = self._settled()
        with Client(self.port) as client:
            for request in requests:
                answer = client.send(request)
                if answer.status != 201:
                    raise WrongAnswerError(f"{OURS.name} answers points with {answer}")
        memory, file = (after - was for after, was in zip(self._settled(), before, strict=True))
        return Footprint(memory / points, file / points)

    def _settled(self) -> tuple[int, int]:
        """Return the bytes of memory and of the append-only file, once the memory no longer changes."""
        used = 0
        for _ in range(SETTLE_TRIES):
            before, used = used, int(self._redis.info("memory")["used_memory"])
            if abs(used - before) < SETTLED_SHARE * used:
                break
            time.sleep(SETTLE_SECONDS)
        return used, int(self._redis.info("persistence")["aof_current_size"])


@contextmanager
def storage(bench: Bench) -> Iterator[Storage]:
    """Run a Redis with an append-only file and an API until the block ends."""
    options = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")
    with running_redis(*options) as redis:
        settings = {**LIMITS, "REDIS_URL": redis.url, "RATE_LIMIT_ALGORITHM": "fixed_window"}
        with bench.served(OURS, settings) as ours, redis.client() as client:
            yield Storage(client, ours.port)


def measure(bench: Bench, share: float = 1.0) -> dict[str, Footprint]:
    """Return the storage per point for dense batches, single points and points with labels.

    Args:
        bench: Starts the API.
        share: The share of the points to store; below 1 for a quick run.
    """
    dense, singles, labelled = (round(count * share) for count in (DENSE_BATCHES, SINGLES, LABELLED_BATCHES))
    with storage(bench) as stored:
        return {
            "dense batches": stored.footprint(_dense(stored, dense), dense * BATCH_POINTS),
            "singles": stored.footprint(_singles(stored, singles), singles),
            "labelled": stored.footprint(
                ticks(stored, "labelled", labelled, tick_seconds=1), labelled * SERIES
            ),
        }


def _dense(stored: Storage, batches: int) -> Iterator[Request]:
    step_us = 10_000
    begin_us = stored.now_us - batches * BATCH_POINTS * step_us
    for first in range(0, batches * BATCH_POINTS, BATCH_POINTS):
        yield ndjson_request(
            BenchPoint("dense", begin_us + number * step_us, stored.value())
            for number in range(first, first + BATCH_POINTS)
        )


def _singles(stored: Storage, points: int) -> Iterator[Request]:
    begin_us = stored.now_us - points * 1_000_000
    for number in range(points):
        yield single_request(BenchPoint("singles", begin_us + number * 1_000_000, stored.value()))


def ticks(stored: Storage, name: str, count: int, tick_seconds: int) -> Iterator[Request]:
    """Yield batches with a point of each of `SERIES` series, one every `tick_seconds` up to now."""
    tick_us = tick_seconds * 1_000_000
    begin_us = stored.now_us - count * tick_us
    labels = [{"host": f"host-{number}", "site": "one"} for number in range(SERIES)]
    for tick in range(count):
        yield ndjson_request(
            BenchPoint(name, begin_us + tick * tick_us + number * tick_us // SERIES, stored.value(), some)
            for number, some in enumerate(labels)
        )
