"""The fleet at a glance, over the wire."""

from typing import Literal

from pydantic import BaseModel, Field

from src.api.models.circuit_breaker import BreakerOut
from src.api.models.proxy import ProxyStatusOut
from src.services.access.admission import WithoutStore
from src.services.overview.health_status import Code


class StatusOut(BaseModel):
    """What is true of the service; of several things that are wrong, the worst."""

    level: Literal["ok", "warning", "critical"] = Field(
        description="critical: clients are turned away. warning: they get less than the best"
    )
    code: Code
    message: str = Field(examples=["Breaker open for 12 s: external service failing, summaries served stale"])


class LatencyOut(BaseModel):
    """How long requests took, in milliseconds, each within 1 %; null without any."""

    p50: float | None = Field(examples=[1.2])
    p95: float | None = Field(examples=[3.4])
    p99: float | None = Field(examples=[9.9])


class TrafficOut(BaseModel):
    """What came in."""

    requests_per_second: float = Field(examples=[12.3])
    points_per_second: float = Field(description="Measurements stored", examples=[1234.0])
    errors_per_second: float = Field(description="Answers with a status from 500 on", examples=[0.1])
    latency_ms: LatencyOut


class LimiterOut(BaseModel):
    """What the rate limiter said."""

    allowed_per_second: float = Field(examples=[11.0])
    refused_per_second: float = Field(examples=[0.4])
    bypassed_per_second: float = Field(description="Let through for want of a verdict", examples=[0.0])


class CacheOut(BaseModel):
    """How the summaries were answered."""

    hits_per_second: float = Field(examples=[9.3])
    misses_per_second: float = Field(examples=[0.7])
    stale_per_second: float = Field(description="Last good ones, in a time of need", examples=[0.0])
    hit_ratio: float | None = Field(description="Null without any", examples=[0.93])


class RedisOut(BaseModel):
    """Redis, as the workers find it."""

    connected: bool = Field(description="Whether it answers, if only to refuse")
    rate_limits_without: WithoutStore = Field(
        description="What the rate limiter does while Redis gives no verdict (`RATE_LIMIT_WITHOUT_REDIS`)",
        examples=["open"],
    )
    latency_ms: float | None = Field(description="Mean of a round trip; null without any", examples=[0.4])
    round_trips_per_second: float = Field(examples=[55.0])
    memory_bytes: int | None = Field(description="Null where it does not say", examples=[1_234_567])


class ExternalServiceOut(BaseModel):
    """The external service."""

    failure_rate: float | None = Field(description="Simulated; null while it is not known", examples=[0.1])
    lab_calls_per_second: float = Field(
        description="Calls of the lab, load tests included, that finished", examples=[59.8]
    )


class OverviewOut(BaseModel):
    """The fleet at one moment: rates over its last ten whole seconds; while Redis is away, one worker's."""

    generated_at: str = Field(examples=["2026-01-31T12:00:05Z"])
    status: StatusOut
    workers: int = Field(description="That have been heard of in the last 3 s", examples=[2])
    traffic: TrafficOut
    limiter: LimiterOut
    cache: CacheOut
    breaker: BreakerOut
    proxy: ProxyStatusOut | None = Field(description="Null where there is no proxy")
    redis: RedisOut
    external_service: ExternalServiceOut
