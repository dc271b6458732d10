"""The requests that are measured at full speed. Every contestant gets the same requests."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from bench.contestants import APPLICATIONS, OURS, STACKS, Application, Contestant
from bench.figures import TIMES
from bench.load import Request
from bench.peers.databases import DATABASES, Database
from bench.points import BenchPoint, array_request, lines_request, ndjson_request, single_request
from src.resilience.clock import SystemClock

UNBOUNDED = str(1_000_000)
"""A limit that no contestant reaches, although the limiter counts."""

LIMITS = {
    "RATE_LIMIT_REQUESTS": UNBOUNDED,
    "RATE_LIMIT_READ_REQUESTS": UNBOUNDED,
    "RATE_LIMIT_WINDOW_SECONDS": "60",
}
ONE_AN_HOUR = {**LIMITS, "RATE_LIMIT_REQUESTS": "1", "RATE_LIMIT_WINDOW_SECONDS": "3600"}

CONNECTIONS = 32
BATCH_CONNECTIONS = 4
"""Fewer connections, because with many of these large requests most would wait until the turn ends."""
BATCH_POINTS, BATCH_TYPES = 1000, 10
LARGE_BATCH_POINTS = 10_000
BATCH_SECONDS = 100
"""The time that the points of a batch cover."""
SERIES = 1_000
"""The number of series in a labelled batch, all of one type."""


class Target(NamedTuple):
    """The targets in the table, as a multiple of the best stack's rate or as units per second."""

    bar: str
    stretch: str


PLAIN_BATCHES = Target(f"450,000; 1{TIMES} InfluxDB", f"1.2{TIMES} InfluxDB")
OTHER_BATCHES = Target("250,000", "350,000")


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of request.

    Attributes:
        key: The name on the command line.
        title: The name in the tables.
        request: The request to applications.
        status: The expected status. Bare applications answer every request with 200.
        target: The targets.
        units: The number of units that one request counts for.
        connections: The number of connections.
        before: The requests before the turn, after Redis was emptied.
        environment: Settings of every application.
        contestants: The contestants.
        is_cached: Whether the answer must have a header of a cache hit.
        lines: The request to databases, which answer with 204.
    """

    key: str
    title: str
    request: Request
    status: int
    target: Target
    units: int = 1
    connections: int = CONNECTIONS
    before: tuple[Request, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: LIMITS)
    contestants: tuple[Contestant, ...] = APPLICATIONS
    is_cached: bool = False
    lines: Request | None = None

    def request_to(self, contestant: Contestant) -> Request:
        """Return the request to `contestant`."""
        if isinstance(contestant, Application):
            return self.request
        assert self.lines is not None, f"{contestant.name} does not take part in {self.key}"
        return self.lines

    def status_of(self, contestant: Contestant) -> int:
        """Return the status with which `contestant` answers."""
        if isinstance(contestant, Database):
            return 204
        return 200 if contestant.is_bare else self.status

    def is_hit_at(self, contestant: Contestant) -> bool:
        """Return whether the answer of `contestant` must have a header of a cache hit."""
        return self.is_cached and isinstance(contestant, Application) and not contestant.is_bare


def works() -> tuple[Work, ...]:
    """Return all works. The timestamps of their points end now."""
    now_us = int(SystemClock().now() * 1e6)
    ingest = single_request(BenchPoint("bench", now_us, 20))
    summary = Request("GET", "/api/metrics/summary?type=bench")
    points = _points(now_us, BATCH_POINTS)
    ndjson = ndjson_request(points)
    zipped = replace(ndjson, body=gzip.compress(ndjson.body), more_headers={"Content-Encoding": "gzip"})
    return (
        Work("ingest", "`POST /api/metrics`, limiter on", ingest, 201, Target(f"4.9{TIMES}", f"6{TIMES}")),
        Work(
            "cached", "cached summary, limiter on", summary, 200,
            Target(f"7.3{TIMES}", f"10{TIMES}"), before=(ingest, summary), is_cached=True,
        ),
        Work(
            "refused", "refused request (429)", ingest, 429, Target(f"9.8{TIMES}", f"12{TIMES}"),
            before=(ingest,), environment=ONE_AN_HOUR,
        ),
        _batch_work(
            "batch", "batch of 1,000 points, NDJSON", points, PLAIN_BATCHES, (OURS, *STACKS, *DATABASES)
        ),
        _batch_work(
            "batch-10000", "batch of 10,000 points, NDJSON", _points(now_us, LARGE_BATCH_POINTS),
            PLAIN_BATCHES, (OURS, *STACKS, *DATABASES),
        ),
        _batch_work(
            "labelled", "batch of 1,000 points of 1,000 series, NDJSON", _labelled_points(now_us),
            OTHER_BATCHES, (OURS, *DATABASES),
        ),
        replace(
            _batch_work("array", "batch of 1,000 points, JSON array", points, OTHER_BATCHES, (OURS,)),
            request=array_request(points),
        ),
        replace(
            _batch_work("gzip", "batch of 1,000 points, NDJSON, gzip", points, OTHER_BATCHES, (OURS,)),
            request=zipped,
        ),
    )  # fmt: skip


def _batch_work(
    key: str, title: str, points: list[BenchPoint], target: Target, contestants: tuple[Contestant, ...]
) -> Work:
    return Work(
        key, title, ndjson_request(points), 201, target, units=len(points),
        connections=BATCH_CONNECTIONS, contestants=contestants, lines=lines_request(points),
    )  # fmt: skip


def _points(now_us: int, count: int) -> list[BenchPoint]:
    """Return `count` points of ten types, evenly over the last `BATCH_SECONDS`."""
    step_us = BATCH_SECONDS * 1_000_000 // count
    return [
        BenchPoint(f"bench-{number % BATCH_TYPES}", now_us - number * step_us, _value(number))
        for number in range(count)
    ]


def _labelled_points(now_us: int) -> list[BenchPoint]:
    """Return a point of each of `SERIES` series."""
    step_us = BATCH_SECONDS * 1_000_000 // SERIES
    return [
        BenchPoint("bench", now_us - number * step_us, _value(number), {"host": f"host-{number}"})
        for number in range(SERIES)
    ]


def _value(number: int) -> float:
    return 20 + number % 97 / 7
