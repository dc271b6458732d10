"""What an operator may do: set the simulated failure rate, open and close the breaker."""

from fastapi import APIRouter, Request
from pydantic import TypeAdapter

from src.api.admin_access import RequireAdmin
from src.api.body import MAX_OBJECT_BYTES, media_type, parse_json, read_body, too_large
from src.api.dependencies import state
from src.api.models import BreakerOut, FailureRate
from src.api.openapi import ADMIN_ERRORS, BODY_ERRORS, json_body, problems, request_headers
from src.api.routes.circuit_breaker import breaker_out

router = APIRouter(prefix="/api/admin", tags=["admin"])

_FAILURE_RATE = TypeAdapter(FailureRate)


@router.get(
    "/external-service/failure-rate",
    summary="Simulated failure rate",
    responses=problems("EXTERNAL_SERVICE_UNAVAILABLE"),
)
async def failure_rate(request: Request) -> FailureRate:
    """Return the share of calls that the simulated external service fails."""
    return FailureRate(failure_rate=await state(request)["external_service"].failure_rate())


@router.put(
    "/external-service/failure-rate",
    summary="Set the simulated failure rate",
    dependencies=[RequireAdmin],
    responses=problems(
        *ADMIN_ERRORS,
        *BODY_ERRORS,
        too_large(MAX_OBJECT_BYTES),
        "REDIS_UNAVAILABLE",
        "EXTERNAL_SERVICE_UNAVAILABLE",
    ),
    openapi_extra=request_headers("Content-Encoding") | json_body(FailureRate),
)
async def set_failure_rate(request: Request) -> FailureRate:
    """Have the simulated external service fail that share of its calls, whichever worker makes them."""
    services = state(request)
    media_type(request, "application/json")
    max_bytes = min(MAX_OBJECT_BYTES, services["body_limits"].max_bytes)
    body = await read_body(request, max_bytes, services["clock"])
    wanted = parse_json(_FAILURE_RATE, body)
    rate = await services["external_service"].set_failure_rate(wanted.failure_rate)
    return FailureRate(failure_rate=rate)


@router.post(
    "/circuit-breaker/open",
    summary="Open the circuit breaker",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def open_breaker(request: Request) -> BreakerOut:
    """Open the breaker. It stays open, whatever the external service does, until it is closed by hand."""
    breaker = state(request)["breaker"]
    await breaker.force_open()
    return await breaker_out(breaker)


@router.post(
    "/circuit-breaker/close",
    summary="Close the circuit breaker",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def close_breaker(request: Request) -> BreakerOut:
    """Close the breaker and forget what it counted."""
    breaker = state(request)["breaker"]
    await breaker.close()
    return await breaker_out(breaker)
