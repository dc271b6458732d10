"""A stack of common packages: slowapi, fastapi-cache2, aiobreaker and redis-py.

slowapi uses fixed windows, which are its default and its fastest algorithm, and sends the quota headers like
this API. Its calls to Redis block the event loop, because it has no asynchronous ones.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
from aiobreaker import CircuitBreaker
from fastapi import FastAPI, Request, Response
from fastapi_cache import FastAPICache
from fastapi_cache.backends.redis import RedisBackend
from fastapi_cache.decorator import cache
from redis.asyncio import Redis
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

from bench.peers.measurements import (
    CACHE_TTL_SECONDS,
    INGEST_LIMIT,
    PROVIDER_URL,
    READ_LIMIT,
    REDIS_URL,
    WINDOW_SECONDS,
    Measurement,
    MetricType,
    read_lines,
    received,
    store,
    store_all,
    summarize,
)

redis: Redis = Redis.from_url(REDIS_URL)
provider = httpx.AsyncClient(base_url=PROVIDER_URL, timeout=5)
breaker = CircuitBreaker(fail_max=5, timeout_duration=timedelta(seconds=30))
limiter = Limiter(key_func=get_remote_address, storage_uri=REDIS_URL, headers_enabled=True)


async def ingest(request: Request, response: Response, measurement: Measurement) -> dict[str, object]:  # noqa: ARG001 -- slowapi wants both
    """Store one measurement."""
    await store(redis, measurement)
    return received(measurement)


async def ingest_batch(request: Request, response: Response) -> dict[str, object]:  # noqa: ARG001
    """Store one measurement per line."""
    return await store_all(redis, read_lines(await request.body()))


async def summary(request: Request, response: Response, type: MetricType) -> dict[str, object]:  # noqa: A002, ARG001
    """Summarize a type."""
    return await summarize(redis, type, await breaker.call_async(reference, type))


async def reference(metric_type: str) -> object:
    """Return the external service's data about a type, or None if it has none."""
    answer = await provider.get(f"/kv/metric-types/{metric_type}")
    return None if answer.status_code == 404 else answer.raise_for_status().json()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Set up the cache."""
    FastAPICache.init(RedisBackend(redis), prefix="cache")
    yield


app = FastAPI(lifespan=lifespan)
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
ingest_quota = limiter.limit(f"{INGEST_LIMIT}/{WINDOW_SECONDS} seconds")
read_quota = limiter.limit(f"{READ_LIMIT}/{WINDOW_SECONDS} seconds")
app.post("/api/metrics", status_code=201)(ingest_quota(ingest))
app.post("/api/metrics/batch", status_code=201)(ingest_quota(ingest_batch))
app.get("/api/metrics/summary")(read_quota(cache(expire=CACHE_TTL_SECONDS)(summary)))
