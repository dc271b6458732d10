"""Health in its three forms."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from src.analytics.points import format_seconds
from src.api.dependencies import state
from src.api.models.health import Health, Liveness
from src.api.openapi import Responses

router = APIRouter(tags=["health"])

_UNHEALTHY: Responses = {503: {"model": Health, "description": "Redis does not answer"}}


async def _health(request: Request) -> Response:
    services = state(request)
    connected = await services["redis_answers"]()
    health = Health(
        status="healthy" if connected else "unhealthy",
        redis_connected=connected,
        timestamp=format_seconds(services["clock"].now()),
    )
    headers = None if connected else {"Retry-After": "1"}
    return JSONResponse(health.model_dump(), 200 if connected else 503, headers)


@router.get("/health", response_model=Health, responses=_UNHEALTHY, summary="Is the service well?")
async def health(request: Request) -> Response:
    """Say within a second whether the service can do its work, that is, whether Redis answers."""
    return await _health(request)


@router.get("/health/live", response_model=Liveness, summary="Does the process serve?")
async def live() -> Liveness:
    """Answer 200 while the process serves. Redis is not asked."""
    return Liveness()


@router.get("/health/ready", response_model=Health, responses=_UNHEALTHY, summary="May requests come in?")
async def ready(request: Request) -> Response:
    """Answer 200 when requests can be served, 503 while they can't."""
    return await _health(request)
