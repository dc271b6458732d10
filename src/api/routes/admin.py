"""The operator's endpoints: simulated faults, the circuit breaker, and the policy of the proxy's queue."""

from typing import cast

from fastapi import APIRouter, Request

from src.api.access.admin_access import RequireAdmin
from src.api.dependencies import state
from src.api.models.circuit_breaker import BreakerOut
from src.api.models.external_service import FailureRate, FaultChangesIn, FaultsOut
from src.api.models.proxy import ProxyPolicy
from src.api.openapi import ADMIN_ERRORS, BODY_ERRORS, json_body, problems, request_headers
from src.api.requests.body import MAX_OBJECT_BYTES, body_too_large
from src.api.requests.json_object import read_json_object
from src.api.routes import circuit_breaker
from src.services.simulated_faults import FaultChanges, SimulatedFaults

router = APIRouter(prefix="/api/admin", tags=["admin"])

_CHANGE_ERRORS = problems(
    *ADMIN_ERRORS,
    *BODY_ERRORS,
    body_too_large(MAX_OBJECT_BYTES),
    "REDIS_UNAVAILABLE",
    "EXTERNAL_SERVICE_UNAVAILABLE",
)


@router.get(
    "/external-service/failure-rate",
    summary="Simulated failure rate",
    responses=problems("EXTERNAL_SERVICE_UNAVAILABLE"),
)
async def failure_rate(request: Request) -> FailureRate:
    """Return the share of calls for which the simulated external service fails."""
    faults = await state(request)["fault_control"].read()
    return FailureRate(failure_rate=faults.failure_rate)


@router.put(
    "/external-service/failure-rate",
    summary="Set the simulated failure rate",
    dependencies=[RequireAdmin],
    responses=_CHANGE_ERRORS,
    openapi_extra=request_headers("Content-Encoding") | json_body(FailureRate),
)
async def set_failure_rate(request: Request) -> FailureRate:
    """Set the share of calls for which the simulated external service fails, for every worker."""
    body = await read_json_object(request, FailureRate)
    faults = await state(request)["fault_control"].change({"failure_rate": body.failure_rate})
    return FailureRate(failure_rate=faults.failure_rate)


@router.get(
    "/external-service/faults",
    summary="Simulated faults",
    responses=problems("EXTERNAL_SERVICE_UNAVAILABLE"),
)
async def faults(request: Request) -> FaultsOut:
    """Return the faults of the simulated external service."""
    return _faults_out(await state(request)["fault_control"].read())


@router.put(
    "/external-service/faults",
    summary="Change the simulated faults",
    dependencies=[RequireAdmin],
    responses=_CHANGE_ERRORS,
    openapi_extra=request_headers("Content-Encoding") | json_body(FaultChangesIn),
)
async def change_faults(request: Request) -> FaultsOut:
    """Change the failure rate or the delay of the simulated external service, for every worker."""
    body = await read_json_object(request, FaultChangesIn)
    changes = cast("FaultChanges", body.model_dump(exclude_unset=True))
    return _faults_out(await state(request)["fault_control"].change(changes))


@router.post(
    "/circuit-breaker/open",
    summary="Open the circuit breaker",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def open_breaker(request: Request) -> BreakerOut:
    """Open the breaker. It stays open until an operator closes it, even if the external service answers."""
    return await circuit_breaker.force_open(request)


@router.post(
    "/circuit-breaker/close",
    summary="Close the circuit breaker",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS),
)
async def close_breaker(request: Request) -> BreakerOut:
    """Close the breaker and reset its counts."""
    return await circuit_breaker.close(request)


@router.get("/proxy/policy", summary="Policy of the proxy's queue")
async def proxy_policy(request: Request) -> ProxyPolicy:
    """Return the policy of the proxy's queue."""
    return ProxyPolicy(policy=await state(request)["proxy"].policy())


@router.put(
    "/proxy/policy",
    summary="Set the policy of the proxy's queue",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS, *BODY_ERRORS, body_too_large(MAX_OBJECT_BYTES), "REDIS_UNAVAILABLE"),
    openapi_extra=request_headers("Content-Encoding") | json_body(ProxyPolicy),
)
async def set_proxy_policy(request: Request) -> ProxyPolicy:
    """Set the policy of the proxy's queue for every worker. Every queued call stays in the queue."""
    body = await read_json_object(request, ProxyPolicy)
    await state(request)["proxy"].set_policy(body.policy)
    return body


def _faults_out(faults: SimulatedFaults) -> FaultsOut:
    return FaultsOut(failure_rate=faults.failure_rate, latency_ms=faults.latency_ms)
