"""What is measured at full speed: the same request to every contestant, again and again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson

from bench.contestants import ALL, OURS, STACKS, Contestant
from bench.load import Request

UNBOUNDED = str(1_000_000)
"""A limit that the limiter counts against, and that nobody reaches."""

LIMITS = {
    "RATE_LIMIT_REQUESTS": UNBOUNDED,
    "RATE_LIMIT_READ_REQUESTS": UNBOUNDED,
    "RATE_LIMIT_WINDOW_SECONDS": "60",
}
ONE_AN_HOUR = {**LIMITS, "RATE_LIMIT_REQUESTS": "1", "RATE_LIMIT_WINDOW_SECONDS": "3600"}

CONNECTIONS = 32
BATCH_CONNECTIONS = 4
"""So large a request takes a while: of many at once, most would still wait when the turn is over."""
BATCH_POINTS, BATCH_TYPES = 1000, 10


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of request.

    Attributes:
        key: Its name on the command line.
        title: Its name in the tables.
        request: What is sent.
        status: What it is answered, but by the bare ones, which answer everything with 200.
        units: What one request counts for.
        connections: How many send it.
        before: What is sent beforehand, after Redis was emptied.
        environment: Settings of every contestant.
        contestants: Who takes part.
        bar: How many times the best peer's rate is asked for, or how many units a second.
        stretch: The same, for more.
        is_cached: Whether the answer must say that it came from a cache.
    """

    key: str
    title: str
    request: Request
    status: int
    bar: float
    stretch: float
    units: int = 1
    connections: int = CONNECTIONS
    before: tuple[Request, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: LIMITS)
    contestants: tuple[Contestant, ...] = ALL
    is_cached: bool = False


def works() -> tuple[Work, ...]:
    """Return all works. Their points are of now."""
    now = datetime.now(UTC)
    ingest = Request("POST", "/api/metrics", orjson.dumps(_point(now, 0, "bench")), "application/json")
    summary = Request("GET", "/api/metrics/summary?type=bench")
    lines = (_point(now, number, f"bench-{number % BATCH_TYPES}") for number in range(BATCH_POINTS))
    batch = Request(
        "POST", "/api/metrics/batch", b"\n".join(map(orjson.dumps, lines)), "application/x-ndjson"
    )
    return (
        Work("ingest", "`POST /api/metrics`, limiter on", ingest, 201, bar=4, stretch=6),
        Work(
            "cached", "cached summary, limiter on", summary, 200, bar=6, stretch=10,
            before=(ingest, summary), is_cached=True,
        ),
        Work(
            "refused", "refused request (429)", ingest, 429, bar=8, stretch=12,
            before=(ingest,), environment=ONE_AN_HOUR,
        ),
        Work(
            "batch", "batch of 1,000 points, NDJSON", batch, 201, bar=60_000, stretch=150_000,
            units=BATCH_POINTS, connections=BATCH_CONNECTIONS, contestants=(OURS, *STACKS),
        ),
    )  # fmt: skip


def _point(now: datetime, number: int, metric_type: str) -> dict[str, object]:
    """Return a measurement of `number` tenths of a second ago."""
    timestamp = now - timedelta(seconds=number / 10)
    return {"timestamp": timestamp.isoformat(), "value": 20 + number % 97 / 7, "type": metric_type}
