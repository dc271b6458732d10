"""The circuit breaker of the external service, to be read."""

from fastapi import APIRouter, Request

from src.api.dependencies import state
from src.api.models.circuit_breaker import BreakerOut
from src.resilience.circuit_breaker.policy import CircuitBreaker

router = APIRouter(prefix="/api/circuit-breaker", tags=["circuit breaker"])


@router.get("/status", summary="State of the circuit breaker")
async def status(request: Request) -> BreakerOut:
    """Show the breaker as the whole fleet sees it."""
    return await breaker_out(state(request)["breaker"])


async def breaker_out(breaker: CircuitBreaker) -> BreakerOut:
    """Return `breaker` as it is shown."""
    return BreakerOut.of(await breaker.status())
