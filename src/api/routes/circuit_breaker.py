"""The external service's circuit breaker: its state, and its control by hand, for admin and lab."""

from fastapi import APIRouter, Request

from src.api.dependencies import state
from src.api.models.circuit_breaker import BreakerOut
from src.resilience.circuit_breaker.policy import CircuitBreaker

router = APIRouter(prefix="/api/circuit-breaker", tags=["circuit breaker"])


@router.get("/status", summary="State of the circuit breaker")
async def status(request: Request) -> BreakerOut:
    """Return the state of the breaker, which all workers share."""
    return await _breaker_out(state(request)["breaker"])


async def force_open(request: Request) -> BreakerOut:
    """Open the breaker until an operator closes it, and return its state."""
    breaker = state(request)["breaker"]
    await breaker.force_open()
    return await _breaker_out(breaker)


async def close(request: Request) -> BreakerOut:
    """Close the breaker, reset its counts, and return its state."""
    breaker = state(request)["breaker"]
    await breaker.close()
    return await _breaker_out(breaker)


async def _breaker_out(breaker: CircuitBreaker) -> BreakerOut:
    return BreakerOut.from_status(await breaker.status())
