"""Health over the wire."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """Whether the service can do its work."""

    status: Literal["healthy", "unhealthy"]
    redis_connected: bool
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])


class Liveness(BaseModel):
    """Whether the process serves."""

    status: Literal["alive"] = "alive"
