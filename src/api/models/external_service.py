"""The models of the simulated external service's faults."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from src.services.simulated_faults import MAX_SIMULATED_LATENCY_MS


class FailureRate(BaseModel):
    """The simulated failure rate of the external service."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"failure_rate": 0.3}]})

    failure_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FaultChangesIn(BaseModel):
    """Changes of the simulated external service's faults. A member that is left out stays unchanged."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"examples": [{"latency_ms": 400}]}
    )

    failure_rate: float = Field(
        0, ge=0, le=1, allow_inf_nan=False, description="Share of calls that fail", examples=[0.3]
    )
    latency_ms: int = Field(
        0, ge=0, le=MAX_SIMULATED_LATENCY_MS, description="Delay of each call in milliseconds", examples=[400]
    )


class FaultsOut(BaseModel):
    """The faults of the simulated external service."""

    failure_rate: float = Field(description="Share of calls that fail, 0 to 1", examples=[0.3])
    latency_ms: int = Field(description="Delay of each call in milliseconds", examples=[400])
