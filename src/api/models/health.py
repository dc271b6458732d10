"""Health over the wire."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """Whether the service can do all its work."""

    status: Literal["healthy", "unhealthy"]
    redis_connected: bool = Field(description="Whether Redis answers, be it with a refusal")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])


class Ready(BaseModel):
    """Which requests can be served."""

    status: Literal["healthy", "degraded", "unhealthy"] = Field(
        description="healthy: all; degraded: one part of them; unhealthy: none"
    )
    redis_connected: bool
    ingest: bool = Field(description="Whether measurements are stored")
    reads: bool = Field(description="Whether summaries and lists are read")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])


class Liveness(BaseModel):
    """Whether the process serves."""

    status: Literal["alive"] = "alive"
