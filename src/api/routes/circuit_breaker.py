"""The state of the external service's circuit breaker."""

from fastapi import APIRouter, Request

from src.api.dependencies import state
from src.api.models.circuit_breaker import BreakerOut
from src.resilience.circuit_breaker.policy import CircuitBreaker

router = APIRouter(prefix="/api/circuit-breaker", tags=["circuit breaker"])


@router.get("/status", summary="State of the circuit breaker")
async def status(request: Request) -> BreakerOut:
    """Return the state of the breaker, which all workers share."""
    return await breaker_out(state(request)["breaker"])


async def breaker_out(breaker: CircuitBreaker) -> BreakerOut:
    """Return the answer for `breaker`."""
    return BreakerOut.from_status(await breaker.status())
