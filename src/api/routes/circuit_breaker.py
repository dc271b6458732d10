"""The circuit breaker of the external service, to be read."""

from dataclasses import astuple

from fastapi import APIRouter, Request

from src.analytics.points import format_seconds
from src.api.dependencies import state
from src.api.models import BreakerOut, BreakerTransition
from src.resilience.circuit_breaker import CircuitBreaker

router = APIRouter(prefix="/api/circuit-breaker", tags=["circuit breaker"])


@router.get("/status", summary="State of the circuit breaker")
async def status(request: Request) -> BreakerOut:
    """Show the breaker as the whole fleet sees it."""
    return await breaker_out(state(request)["breaker"])


async def breaker_out(breaker: CircuitBreaker) -> BreakerOut:
    """Return `breaker` as it is shown."""
    status = await breaker.status()
    return BreakerOut(
        state=status.state,
        failure_count=status.failure_count,
        success_count=status.success_count,
        failure_rate=status.failure_rate,
        name=status.name,
        opened_at=None if status.opened_at is None else format_seconds(status.opened_at),
        retry_after=status.retry_after,
        transitions=[
            BreakerTransition(at=format_seconds(at), before=before, after=after, reason=reason)
            for at, before, after, reason in map(astuple, status.transitions)
        ],
    )
