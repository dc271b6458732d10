"""The models of the circuit breaker's answers."""

from dataclasses import astuple
from typing import Literal

from pydantic import BaseModel, Field

from src.analytics.points import format_seconds
from src.resilience.circuit_breaker.store import BreakerStatus


class BreakerTransition(BaseModel):
    """A change of a circuit breaker's state."""

    at: str = Field(examples=["2026-01-31T12:00:00Z"])
    before: str = Field(examples=["CLOSED"])
    after: str = Field(examples=["OPEN"])
    reason: str = Field(examples=["5 consecutive failures"])


class BreakerOut(BaseModel):
    """The circuit breaker of the external service, the same from every worker."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    failure_count: int = Field(
        description="Consecutive failures; an open breaker keeps the count that opened it", examples=[0]
    )
    success_count: int = Field(description="Successful calls in the window", examples=[0])
    failure_rate: float = Field(description="Share of the window's calls that failed, 0 to 1", examples=[0.0])
    name: str = Field(examples=["external-service"])
    opened_at: str | None
    retry_after: float | None = Field(description="Seconds until an open breaker admits a probe")
    transitions: list[BreakerTransition] = Field(description="The last 20 changes of the state")

    @classmethod
    def from_status(cls, status: BreakerStatus) -> "BreakerOut":
        """Return the answer for `status`."""
        return cls(
            state=status.state,
            failure_count=status.failure_count,
            success_count=status.success_count,
            failure_rate=round(status.failure_rate, 3),
            name=status.name,
            opened_at=None if status.opened_at is None else format_seconds(status.opened_at),
            retry_after=status.retry_after,
            transitions=[
                BreakerTransition(at=format_seconds(at), before=before, after=after, reason=reason)
                for at, before, after, reason in map(astuple, status.transitions)
            ],
        )
