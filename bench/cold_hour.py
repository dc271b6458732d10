"""Measures an uncached summary of an hour: this API beside the databases, over the same points.

One type has `POINTS` points in the last `MINUTES` minutes. Each contestant in turn computes count, average,
extremes, latest, sum and three percentiles, without a cache. Each answer must cover every point.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import orjson

from bench.contestants import OURS, Contestant
from bench.load import Request, send
from bench.peers.databases import DATABASES, Database
from bench.points import BenchPoint, lines_request, ndjson_request
from bench.rounds import Bench, Served, WrongAnswerError
from bench.works import LARGE_BATCH_POINTS, LIMITS
from src.resilience.clock import SystemClock

POINTS = 700_000
MINUTES = 50
"""Less than an hour, so that the last answer still covers all points."""
READS_A_ROUND = 2
VISIBLE_SECONDS = 30.0
"""The longest time until a database shows all accepted points."""

_TYPE = "hour"


def measure(bench: Bench, points: int = POINTS) -> dict[str, list[float]]:
    """Return the seconds of each summary, by contestant."""
    clock = SystemClock()
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack, bench.redis.client() as redis:
        redis.flushall()
        everybody: tuple[Contestant, ...] = (OURS, *DATABASES)
        contestants = [item for item in everybody if item in bench.programs]
        served = [stack.enter_context(bench.served(item, LIMITS)) for item in contestants]
        for batch in _batches(int(clock.now() * 1e6), points):
            for one in served:
                _store(one, batch)
        for one in served:
            gives_up_at = clock.monotonic() + VISIBLE_SECONDS
            while _count(one) < points:
                if clock.monotonic() > gives_up_at:
                    raise WrongAnswerError(f"{one.contestant.name} does not show all {points:,} points")
        for _ in range(READS_A_ROUND * bench.rounds):
            for one in served:
                began = clock.monotonic()
                count = _count(one)
                seconds.setdefault(one.contestant.name, []).append(clock.monotonic() - began)
                if count != points:
                    raise WrongAnswerError(f"{one.contestant.name} summarizes {count:,} of {points:,} points")
    return seconds


def _batches(now_us: int, count: int) -> Iterator[list[BenchPoint]]:
    draw = Random(0)
    begin_us, step_us = now_us - MINUTES * 60_000_000, MINUTES * 60_000_000 / count
    for first in range(0, count, LARGE_BATCH_POINTS):
        yield [
            BenchPoint(_TYPE, begin_us + round(number * step_us), draw.lognormvariate(3.0, 0.5))
            for number in range(first, min(first + LARGE_BATCH_POINTS, count))
        ]


def _store(served: Served, batch: list[BenchPoint]) -> None:
    is_database = isinstance(served.contestant, Database)
    answer = send(lines_request(batch) if is_database else ndjson_request(batch), served.port)
    if answer.status not in {201, 204}:
        raise WrongAnswerError(f"{served.contestant.name} answers a batch with {answer}")


def _count(served: Served) -> int:
    """Request the summary and return the number of points that it covers."""
    if isinstance(served.contestant, Database):
        return served.contestant.count_in(send(served.contestant.summary(_TYPE), served.port).body)
    return int(orjson.loads(send(summary_request(f"type={_TYPE}&period=hourly"), served.port).body)["count"])


def summary_request(query: str) -> Request:
    """Return the request for a summary of this API that bypasses the cache."""
    return Request("GET", f"/api/metrics/summary?{query}", more_headers={"Cache-Control": "no-cache"})
