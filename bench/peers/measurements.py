"""The storage that both stacks use: one sorted set of points for each type, which a summary reads completely.

This is the smallest implementation that does the work: one command stores a point.
"""

import json
import os
import re
import statistics
import uuid
from collections.abc import Iterable
from typing import Annotated, cast

from pydantic import AwareDatetime, BaseModel, FiniteFloat, StringConstraints, TypeAdapter
from redis.asyncio import Redis

REDIS_URL = os.environ["REDIS_URL"]
PROVIDER_URL = os.environ["EXTERNAL_SERVICE_URL"]
INGEST_LIMIT = int(os.environ["RATE_LIMIT_REQUESTS"])
READ_LIMIT = int(os.environ["RATE_LIMIT_READ_REQUESTS"])
WINDOW_SECONDS = int(os.environ["RATE_LIMIT_WINDOW_SECONDS"])
CACHE_TTL_SECONDS = 300

MetricType = Annotated[str, StringConstraints(pattern=re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$"))]


class Measurement(BaseModel):
    """A posted measurement."""

    timestamp: AwareDatetime
    value: FiniteFloat
    type: MetricType


_MEASUREMENT = TypeAdapter(Measurement)


def read_lines(body: bytes) -> list[Measurement]:
    """Return the measurements of an NDJSON body."""
    return [_MEASUREMENT.validate_json(line) for line in body.splitlines()]


def received(measurement: Measurement) -> dict[str, object]:
    """Return the answer to one measurement."""
    return {
        "message": "Metric received",
        "timestamp": measurement.timestamp,
        "type": measurement.type,
    }


async def store(redis: Redis, measurement: Measurement) -> None:
    """Store one measurement."""
    await redis.zadd(_key(measurement.type), _scored([measurement]))


async def store_all(redis: Redis, measurements: list[Measurement]) -> dict[str, object]:
    """Store many measurements in one round trip, with a command per type, and return the answer."""
    by_type: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_type.setdefault(measurement.type, []).append(measurement)
    pipeline = redis.pipeline(transaction=False)
    for metric_type, some in by_type.items():
        pipeline.zadd(_key(metric_type), _scored(some))
    await pipeline.execute()
    return {"accepted": len(measurements), "rejected": 0, "errors": []}


async def summarize(redis: Redis, metric_type: str, reference: object) -> dict[str, object]:
    """Return the summary of all points of a type."""
    members = cast("list[bytes]", await redis.zrange(_key(metric_type), 0, -1))
    values = [json.loads(member)[0] for member in members]
    percentiles = statistics.quantiles(values, n=100) if len(values) > 1 else values * 99
    return {
        "type": metric_type,
        "period": "all",
        "count": len(values),
        "sum": sum(values),
        "average_value": statistics.fmean(values) if values else None,
        "min_value": min(values, default=None),
        "max_value": max(values, default=None),
        "latest_value": values[-1] if values else None,
        "p50": percentiles[49] if values else None,
        "p95": percentiles[94] if values else None,
        "p99": percentiles[98] if values else None,
        "reference": reference,
    }


def _scored(measurements: Iterable[Measurement]) -> dict[str, float]:
    # Each member has a random part, so that two equal measurements are two members.
    return {json.dumps((item.value, uuid.uuid4().hex)): item.timestamp.timestamp() for item in measurements}


def _key(metric_type: str) -> str:
    return f"points:{metric_type}"
