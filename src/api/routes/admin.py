"""What an operator may do: trouble the simulated service, open or close the breaker, switch the proxy."""

from typing import cast

from fastapi import APIRouter, Request

from src.api.admin_access import RequireAdmin
from src.api.body import MAX_OBJECT_BYTES, too_large
from src.api.dependencies import state
from src.api.json_object import read_json_object
from src.api.models.circuit_breaker import BreakerOut
from src.api.models.external_service import FailureRate, FaultChangesIn, FaultsOut
from src.api.models.proxy import ProxyPolicy
from src.api.openapi import ADMIN_ERRORS, BODY_ERRORS, json_body, problems, request_headers
from src.api.routes.circuit_breaker import breaker_out
from src.services.external_service import FaultChanges, SimulatedFaults

router = APIRouter(prefix="/api/admin", tags=["admin"])

_CHANGE_ERRORS = problems(
    *ADMIN_ERRORS,
    *BODY_ERRORS,
    too_large(MAX_OBJECT_BYTES),
    "REDIS_UNAVAILABLE",
    "EXTERNAL_SERVICE_UNAVAILABLE",
)


@router.get(
    "/external-service/failure-rate",
    summary="Simulated failure rate",
    responses=problems("EXTERNAL_SERVICE_UNAVAILABLE"),
)
async def failure_rate(request: Request) -> FailureRate:
    """Return the share of calls that the simulated external service fails."""
    faults = await state(request)["external_service"].faults()
    return FailureRate(failure_rate=faults.failure_rate)


@router.put(
    "/external-service/failure-rate",
    summary="Set the simulated failure rate",
    dependencies=[RequireAdmin],
    responses=_CHANGE_ERRORS,
    openapi_extra=request_headers("Content-Encoding") | json_body(FailureRate),
)
async def set_failure_rate(request: Request) -> FailureRate:
    """Have the simulated external service fail that share of its calls, whichever worker makes them."""
    wanted = await read_json_object(request, FailureRate)
    external_service = state(request)["external_service"]
    faults = await external_service.change_faults({"failure_rate": wanted.failure_rate})
    return FailureRate(failure_rate=faults.failure_rate)


@router.get(
    "/external-service/faults",
    summary="Simulated faults",
    responses=problems("EXTERNAL_SERVICE_UNAVAILABLE"),
)
async def faults(request: Request) -> FaultsOut:
    """Return how the simulated external service misbehaves."""
    return _faults_out(await state(request)["external_service"].faults())


@router.put(
    "/external-service/faults",
    summary="Change the simulated faults",
    dependencies=[RequireAdmin],
    responses=_CHANGE_ERRORS,
    openapi_extra=request_headers("Content-Encoding") | json_body(FaultChangesIn),
)
async def change_faults(request: Request) -> FaultsOut:
    """Have the simulated external service fail, or be slow, whichever worker calls it."""
    wanted = await read_json_object(request, FaultChangesIn)
    changes = cast("FaultChanges", wanted.model_dump(exclude_unset=True))
    return _faults_out(await state(request)["external_service"].change_faults(changes))


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


@router.get("/proxy/policy", summary="Policy of the proxy's queue")
async def proxy_policy(request: Request) -> ProxyPolicy:
    """Return the policy of the proxy's queue."""
    return ProxyPolicy(policy=await state(request)["proxy"].policy())


@router.put(
    "/proxy/policy",
    summary="Set the policy of the proxy's queue",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS, *BODY_ERRORS, too_large(MAX_OBJECT_BYTES), "REDIS_UNAVAILABLE"),
    openapi_extra=request_headers("Content-Encoding") | json_body(ProxyPolicy),
)
async def set_proxy_policy(request: Request) -> ProxyPolicy:
    """Set the policy of the proxy's queue for every worker. Every call in the queue keeps its place."""
    wanted = await read_json_object(request, ProxyPolicy)
    await state(request)["proxy"].set_policy(wanted.policy)
    return wanted


def _faults_out(faults: SimulatedFaults) -> FaultsOut:
    return FaultsOut(failure_rate=faults.failure_rate, latency_ms=faults.latency_ms)
