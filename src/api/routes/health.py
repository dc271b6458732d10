"""The three health checks: the whole service, the process, and the readiness for requests."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from src.analytics.points import format_seconds
from src.api.dependencies import state
from src.api.models.health import Health, Liveness, Ready
from src.api.openapi import Responses
from src.services.metrics.readiness import Readiness

router = APIRouter(tags=["health"])

_UNHEALTHY: Responses = {503: {"model": Health, "description": "Redis is unavailable, or rejects requests"}}
_NOT_READY: Responses = {
    503: {"model": Ready, "description": "Neither writes nor reads can be served, or the worker is stopping"}
}


async def _read_health(request: Request) -> tuple[bool, Readiness, str]:
    """Return whether Redis replies, the readiness of the service, and the current time."""
    services = state(request)
    connected, readiness = await asyncio.gather(services["is_redis_connected"](), services["readiness"]())
    return connected, readiness, format_seconds(services["clock"].now())


def _answer(body: BaseModel, *, is_ok: bool) -> Response:
    return JSONResponse(body.model_dump(), 200 if is_ok else 503, None if is_ok else {"Retry-After": "1"})


@router.get("/health", response_model=Health, responses=_UNHEALTHY, summary="Health of the service")
async def health(request: Request) -> Response:
    """Answer 200 if the service can serve all requests: Redis accepts reads and writes.

    The answer takes at most one second.
    """
    connected, readiness, now = await _read_health(request)
    is_healthy = readiness.ingest and readiness.reads
    status = "healthy" if is_healthy else "unhealthy"
    return _answer(Health(status=status, redis_connected=connected, timestamp=now), is_ok=is_healthy)


@router.get("/health/live", response_model=Liveness, summary="Liveness of the process")
async def live() -> Liveness:
    """Answer 200 while the process serves requests. The answer does not depend on Redis."""
    return Liveness()


@router.get("/health/ready", response_model=Ready, responses=_NOT_READY, summary="Readiness for requests")
async def ready(request: Request) -> Response:
    """Answer 200 if writes or reads can be served. The body shows the state of both.

    A Redis that is full or has become a replica rejects writes and serves reads. The answer is then 200 with
    `"ingest": false`. The answer is 503 if neither can be served, and after a signal to stop the process.
    """
    connected, readiness, now = await _read_health(request)
    working = [readiness.ingest, readiness.reads]
    is_ready = any(working) and not state(request)["is_stopping"]()
    body = Ready(
        status="unhealthy" if not is_ready else "healthy" if all(working) else "degraded",
        redis_connected=connected,
        ingest=readiness.ingest,
        reads=readiness.reads,
        timestamp=now,
    )
    return _answer(body, is_ok=is_ready)
