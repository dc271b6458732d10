"""Health in its three forms."""

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

_UNHEALTHY: Responses = {503: {"model": Health, "description": "Redis does not answer, or refuses"}}
_NOT_READY: Responses = {
    503: {"model": Ready, "description": "Neither writes nor reads can be served, or the worker is stopping"}
}


async def _look(request: Request) -> tuple[bool, Readiness, str]:
    """Return whether Redis answers, which parts of the service work, and the time."""
    services = state(request)
    connected, readiness = await asyncio.gather(services["redis_answers"](), services["readiness"]())
    return connected, readiness, format_seconds(services["clock"].now())


def _answer(body: BaseModel, *, well: bool) -> Response:
    return JSONResponse(body.model_dump(), 200 if well else 503, None if well else {"Retry-After": "1"})


@router.get("/health", response_model=Health, responses=_UNHEALTHY, summary="Is the service well?")
async def health(request: Request) -> Response:
    """Say within a second whether the service can do all its work: Redis answers, and refuses nothing."""
    connected, readiness, now = await _look(request)
    well = readiness.ingest and readiness.reads
    status = "healthy" if well else "unhealthy"
    return _answer(Health(status=status, redis_connected=connected, timestamp=now), well=well)


@router.get("/health/live", response_model=Liveness, summary="Does the process serve?")
async def live() -> Liveness:
    """Answer 200 while the process serves. Redis is not asked."""
    return Liveness()


@router.get("/health/ready", response_model=Ready, responses=_NOT_READY, summary="May requests come in?")
async def ready(request: Request) -> Response:
    """Answer 200 when some requests can be served, and say which: those that write, those that read.

    A Redis that is full or became a replica refuses writes and serves reads: 200 with `"ingest": false`. The
    answer is 503 when neither can be served, and from a signal to stop on.
    """
    connected, readiness, now = await _look(request)
    working = [readiness.ingest, readiness.reads]
    is_ready = any(working) and not state(request)["is_stopping"]()
    body = Ready(
        status="unhealthy" if not is_ready else "healthy" if all(working) else "degraded",
        redis_connected=connected,
        ingest=readiness.ingest,
        reads=readiness.reads,
        timestamp=now,
    )
    return _answer(body, well=is_ready)
