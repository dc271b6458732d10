"""The models of the overview, which shows the whole fleet."""

from typing import Literal

from pydantic import BaseModel, Field

from src.api.models.circuit_breaker import BreakerOut
from src.api.models.proxy import ProxyStatusOut
from src.services.access.admission import OutagePolicy
from src.services.overview.health_status import Code


class StatusOut(BaseModel):
    """The status of the service: the worst of all findings."""

    level: Literal["ok", "warning", "critical"] = Field(
        description="critical: requests fail. warning: requests are served, but some answers are degraded"
    )
    code: Code
    message: str = Field(examples=["Breaker open for 12 s: external service failing, stale summaries served"])


class LatencyOut(BaseModel):
    """The latency of requests in ms, with a relative error of at most 1 %; null without requests."""

    p50: float | None = Field(examples=[1.2])
    p95: float | None = Field(examples=[3.4])
    p99: float | None = Field(examples=[9.9])


class TrafficOut(BaseModel):
    """The requests of the fleet."""

    requests_per_second: float = Field(examples=[12.3])
    points_per_second: float = Field(description="Measurements stored", examples=[1234.0])
    errors_per_second: float = Field(description="Answers with a status of 500 or above", examples=[0.1])
    latency_ms: LatencyOut


class LimiterOut(BaseModel):
    """The decisions of the rate limiter."""

    allowed_per_second: float = Field(examples=[11.0])
    refused_per_second: float = Field(examples=[0.4])
    bypassed_per_second: float = Field(
        description="Requests that were admitted without a decision, since Redis was unavailable",
        examples=[0.0],
    )


class CacheOut(BaseModel):
    """The answers of the summary cache."""

    hits_per_second: float = Field(examples=[9.3])
    misses_per_second: float = Field(examples=[0.7])
    stale_per_second: float = Field(
        description="Last good summaries that were served instead of a current one", examples=[0.0]
    )
    hit_ratio: float | None = Field(description="Share of hits; null without answers", examples=[0.93])


class RedisOut(BaseModel):
    """The state of Redis, as the workers observe it."""

    connected: bool = Field(description="Whether Redis replies, even if it rejects writes")
    rate_limits_without: OutagePolicy = Field(
        description="The policy of the rate limiter while Redis is unavailable (`RATE_LIMIT_WITHOUT_REDIS`)",
        examples=["open"],
    )
    latency_ms: float | None = Field(
        description="Mean time of a round trip; null without round trips", examples=[0.4]
    )
    round_trips_per_second: float = Field(examples=[55.0])
    memory_bytes: int | None = Field(
        description="Memory that Redis uses; null if that is not known", examples=[1_234_567]
    )


class ExternalServiceOut(BaseModel):
    """The external service."""

    failure_rate: float | None = Field(
        description="The simulated failure rate; null if that is not known", examples=[0.1]
    )
    lab_calls_per_second: float = Field(
        description="Finished calls of the lab, load tests included", examples=[59.8]
    )


class OverviewOut(BaseModel):
    """The state of the fleet.

    The rates cover the last ten whole seconds. While Redis is unavailable, they are those of one worker.
    """

    generated_at: str = Field(examples=["2026-01-31T12:00:05Z"])
    status: StatusOut
    workers: int = Field(description="The number of workers that reported within the last 3 s", examples=[2])
    traffic: TrafficOut
    limiter: LimiterOut
    cache: CacheOut
    breaker: BreakerOut
    proxy: ProxyStatusOut | None = Field(description="Null if there is no proxy")
    redis: RedisOut
    external_service: ExternalServiceOut
