"""The models of the health answers."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """Whether the service can serve all requests."""

    status: Literal["healthy", "unhealthy"]
    redis_connected: bool = Field(description="Whether Redis replies, even if it rejects writes")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])


class Ready(BaseModel):
    """The kinds of requests that the service can serve."""

    status: Literal["healthy", "degraded", "unhealthy"] = Field(
        description="healthy: writes and reads work; degraded: only one of them works; unhealthy: none works"
    )
    redis_connected: bool
    ingest: bool = Field(description="Whether measurements can be stored")
    reads: bool = Field(description="Whether summaries and lists can be read")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])


class Liveness(BaseModel):
    """The process is serving requests."""

    status: Literal["alive"] = "alive"
