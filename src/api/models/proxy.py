"""The proxy's state and policy over the wire."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ProxyPolicy(BaseModel):
    """By which policy the proxy's line is served."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"policy": "priority"}]})

    policy: Literal["fifo", "priority"] = Field(
        description="fifo: by arrival. priority: by priority and arrival; waiting raises a request's rank"
    )


class ProxyBreaker(BaseModel):
    """The circuit breaker of the proxy's upstream, in short."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    retry_after: float | None = Field(description="Seconds until a call may be let through", examples=[None])


class ProxyStatusOut(BaseModel):
    """The proxy, the same from every worker. The counts are of requests, since the first one there was."""

    policy: Literal["fifo", "priority"]
    interval_seconds: float = Field(description="Between two calls of the upstream", examples=[1.0])
    queue_size: int = Field(description="Calls in line", examples=[7])
    capacity: int = Field(description="Calls there may be in line", examples=[100])
    oldest_age_seconds: float | None = Field(
        description="How long the longest has waited; null: the line is empty", examples=[6.21]
    )
    next_turn_seconds: float = Field(
        description="Until the next call may begin; more than the interval where the upstream asked to wait",
        examples=[0.35],
    )
    requests: int = Field(description="Taken in, those that still wait included", examples=[120])
    successes: int = Field(description="Answered by the upstream, with any status below 500", examples=[70])
    failures: int = Field(description="Answered with an error of the proxy", examples=[1])
    fallbacks: int = Field(description="Answered with a stale copy in place of an error", examples=[2])
    cache_hits: int = Field(description="Answered with a fresh copy", examples=[40])
    mean_latency_ms: float | None = Field(
        description="From arrival to the beginning of the answer, waits included", examples=[2310.4]
    )
    breaker: ProxyBreaker
