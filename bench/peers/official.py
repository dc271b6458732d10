"""The official integration of Redis with FastAPI: the rate limiter and the cache of fastapi-redis-sdk.

It has no circuit breaker, so that calls to the external service are not protected.
"""

import httpx
from fastapi import Depends, FastAPI, Request
from redis_fastapi import AsyncRedisDep, FastAPIRedis, cache, rate_limit

from bench.peers.measurements import (
    CACHE_TTL_SECONDS,
    INGEST_LIMIT,
    PROVIDER_URL,
    READ_LIMIT,
    WINDOW_SECONDS,
    Measurement,
    MetricType,
    read_lines,
    received,
    store,
    store_all,
    summarize,
)

provider = httpx.AsyncClient(base_url=PROVIDER_URL, timeout=5)
ingest_quota = Depends(rate_limit(limit=INGEST_LIMIT, window=WINDOW_SECONDS, ietf_headers=True))
read_quota = Depends(rate_limit(limit=READ_LIMIT, window=WINDOW_SECONDS, ietf_headers=True))
cached = Depends(cache(ttl=CACHE_TTL_SECONDS))

app = FastAPI()
FastAPIRedis(app).lifespan().caching().rate_limiting()  # it reads REDIS_URL itself


@app.post("/api/metrics", status_code=201, dependencies=[ingest_quota])
async def ingest(measurement: Measurement, redis: AsyncRedisDep) -> dict[str, object]:
    """Store one measurement."""
    await store(redis, measurement)
    return received(measurement)


@app.post("/api/metrics/batch", status_code=201, dependencies=[ingest_quota])
async def ingest_batch(request: Request, redis: AsyncRedisDep) -> dict[str, object]:
    """Store one measurement per line."""
    return await store_all(redis, read_lines(await request.body()))


@app.get("/api/metrics/summary", dependencies=[read_quota, cached])
async def summary(type: MetricType, redis: AsyncRedisDep) -> dict[str, object]:  # noqa: A002
    """Summarize a type."""
    answer = await provider.get(f"/kv/metric-types/{type}")
    reference = None if answer.status_code == 404 else answer.raise_for_status().json()
    return await summarize(redis, type, reference)
