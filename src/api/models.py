"""What goes over the wire: request models that validate, and answers as the documentation shows them."""

from dataclasses import astuple
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticCustomError

from src.analytics.points import Point, format_seconds, parse_timestamp
from src.resilience.breaker_store import BreakerStatus
from src.services.external_service import MAX_SIMULATED_LATENCY_MS
from src.services.series import DEFAULT_STEP_SECONDS
from src.services.verdict import Code

TYPE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$"

MetricType = Annotated[
    str, Field(pattern=TYPE_PATTERN, description="Name of a metric type", examples=["cpu_usage"])
]


def _read_timestamp(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError("timestamp", "must be an RFC 3339 string, such as 2026-01-31T12:00:00Z")
    try:
        return parse_timestamp(value)
    except ValueError as error:
        raise PydanticCustomError("timestamp", "{reason}", {"reason": str(error)}) from None


TimestampMicroseconds = Annotated[
    int,
    BeforeValidator(_read_timestamp),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339; without an offset it is UTC; microseconds are kept",
        }
    ),
]


class MetricIn(BaseModel):
    """One measurement as it is posted."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"timestamp": "2026-01-31T12:00:00Z", "value": 42.5, "type": "cpu_usage"},
                {"timestamp": "2026-01-31T12:00:01.5Z", "value": 512, "type": "memory_mb"},
            ]
        },
    )

    timestamp: TimestampMicroseconds
    value: Annotated[float, Field(allow_inf_nan=False, description="A finite number")]
    type: MetricType

    def point(self) -> Point:
        """Return the measurement as the analytics know it."""
        return Point(self.type, self.timestamp, self.value)


METRIC_IN = TypeAdapter(MetricIn)


class MetricReceived(BaseModel):
    """The answer to one measurement."""

    message: Literal["Metric received"] = "Metric received"
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    type: str = Field(examples=["cpu_usage"])


class BatchError(BaseModel):
    """Why one point of a batch was refused."""

    index: int = Field(description="Its place in the batch, from 0", examples=[3])
    field: str = Field(examples=["value"])
    message: str = Field(examples=["Input should be a finite number"])


class BatchReceived(BaseModel):
    """The answer to a batch."""

    accepted: int = Field(examples=[999])
    rejected: int = Field(examples=[1])
    errors: list[BatchError] = Field(description="The first 100")


class MetricOut(BaseModel):
    """One stored measurement."""

    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    value: float = Field(examples=[42.5])
    type: str = Field(examples=["cpu_usage"])


class MetricTypeOut(BaseModel):
    """One metric type."""

    type: str = Field(examples=["cpu_usage"])
    count: int = Field(examples=[120])
    latest_timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    latest_value: float = Field(examples=[42.5])


class Summary(BaseModel):
    """The summary of one metric type over one period. Without data, count is 0 and the figures are null."""

    type: str = Field(examples=["cpu_usage"])
    period: Literal["all", "daily", "hourly"]
    count: int = Field(examples=[120])
    average_value: float | None = Field(
        description="Null also where the sum is beyond a double's range", examples=[40.1]
    )
    min_value: float | None = Field(examples=[12.0])
    max_value: float | None = Field(examples=[97.5])
    latest_value: float | None = Field(description="Latest by timestamp, then by arrival", examples=[42.5])
    sum: float | None = Field(examples=[4812.0])
    p50: float | None = Field(description="Relative error at most 1 %", examples=[39.9])
    p95: float | None = Field(examples=[88.0])
    p99: float | None = Field(examples=[95.2])
    latest_timestamp: str | None = Field(examples=["2026-01-31T12:00:00Z"])
    reference: object | None = Field(
        description="What the external service knows of this type",
        examples=[{"unit": "percent", "description": "Share of CPU time in use"}],
    )
    degraded: bool = Field(description="True when this is the last good summary, served in a time of need")
    generated_at: str = Field(examples=["2026-01-31T12:00:05Z"])


class Health(BaseModel):
    """Whether the service can do its work."""

    status: Literal["healthy", "unhealthy"]
    redis_connected: bool
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])


class Liveness(BaseModel):
    """Whether the process serves."""

    status: Literal["alive"] = "alive"


class BreakerTransition(BaseModel):
    """One change of a circuit breaker's state."""

    at: str = Field(examples=["2026-01-31T12:00:00Z"])
    before: str = Field(examples=["CLOSED"])
    after: str = Field(examples=["OPEN"])
    reason: str = Field(examples=["5 consecutive failures"])


class BreakerOut(BaseModel):
    """The circuit breaker of the external service, the same from every worker."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    failure_count: int = Field(
        description="Failures in a row; an open breaker still shows the count that opened it", examples=[0]
    )
    success_count: int = Field(description="Successful calls in the window", examples=[0])
    failure_rate: float = Field(description="Share of the window's calls that failed, 0 to 1", examples=[0.0])
    name: str = Field(examples=["external-service"])
    opened_at: str | None
    retry_after: float | None = Field(description="Seconds until an open breaker lets a probe through")
    transitions: list[BreakerTransition] = Field(description="The last 20")

    @classmethod
    def of(cls, status: BreakerStatus) -> "BreakerOut":
        """Return the breaker as it is shown."""
        return cls(
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


class FailureRate(BaseModel):
    """The simulated failure rate of the external service."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"failure_rate": 0.3}]})

    failure_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FaultChangesIn(BaseModel):
    """How the simulated external service is to misbehave. What is left out stays."""

    model_config = ConfigDict(
        strict=True, extra="forbid", json_schema_extra={"examples": [{"latency_ms": 400}]}
    )

    failure_rate: float = Field(
        0, ge=0, le=1, allow_inf_nan=False, description="Share of calls that fail", examples=[0.3]
    )
    latency_ms: int = Field(
        0, ge=0, le=MAX_SIMULATED_LATENCY_MS, description="Milliseconds each call waits first", examples=[400]
    )


class FaultsOut(BaseModel):
    """How the simulated external service misbehaves."""

    failure_rate: float = Field(description="Share of calls that fail, 0 to 1", examples=[0.3])
    latency_ms: int = Field(description="Milliseconds each call waits first", examples=[400])


class ProblemField(BaseModel):
    """What is wrong with one field."""

    index: int | None = Field(None, description="Its point's place in a batch, from 0")
    field: str = Field(examples=["value"])
    message: str = Field(examples=["Input should be a valid number"])


class ProblemOut(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    code: str = Field(description="The error's fixed name")
    message: str = Field(description="The same as detail")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    request_id: str
    errors: list[ProblemField] | None = Field(None, description="Field by field, with a 422")


class LabCall(BaseModel):
    """What became of one call of the lab."""

    number: int = Field(description="Its place in the run, from 1", examples=[3])
    path: str = Field(description="What the provider was asked for", examples=["/status/500"])
    outcome: Literal["succeeded", "recovered", "fallback", "rejected"] = Field(
        description="succeeded: the first attempt was answered. recovered: a later one was. fallback: the "
        "provider was asked, no attempt was answered, and the fallback stood in. rejected: a policy refused, "
        "the provider was not asked, and the fallback stood in here as well",
        examples=["fallback"],
    )
    attempts: int = Field(description="How often the provider was asked", examples=[3])
    rejected_by: Literal["rate_limiter", "bulkhead", "circuit_breaker"] | None
    error: str | None = Field(description="Why there was no answer", examples=["status 500"])
    limiter_wait_ms: float = Field(description="Waited for the rate limiter", examples=[0.02])
    bulkhead_wait_ms: float = Field(description="Waited for the bulkhead", examples=[0.01])
    duration_ms: float = Field(description="In all, waits included", examples=[212.4])


class LabTally(BaseModel):
    """How many calls came to which outcome; each to exactly one."""

    succeeded: int = Field(examples=[1])
    recovered: int = Field(description="Answered after a retry", examples=[0])
    fallback: int = Field(description="Asked in vain; the fallback stood in", examples=[1])
    rejected: int = Field(description="Refused unasked; the fallback stood in", examples=[0])
    unfinished: int = Field(description="Not ended when the time was up", examples=[0])


class LabRun(LabTally):
    """What became of a run."""

    count: int = Field(examples=[2])
    duration_ms: float = Field(examples=[215.8])
    calls: list[LabCall] = Field(description="Those that ended, in the order they were begun in")


class StressOut(LabTally):
    """What a stress test showed."""

    concurrency: int = Field(examples=[20])
    duration_ms: float = Field(examples=[10_001.2])
    count: int = Field(description="Calls that ended", examples=[548])
    throughput_per_second: float = Field(description="Calls that ended a second", examples=[54.8])
    p50_ms: float | None = Field(
        description="Latency, waits included; relative error at most 1 %", examples=[397.1]
    )
    p95_ms: float | None = Field(examples=[421.0])
    p99_ms: float | None = Field(examples=[455.6])


class CircuitStateOut(BaseModel):
    """The breaker in three words."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    fail_count: int = Field(description="Failures in a row, or those that opened it", examples=[5])
    opened_at: str | None = Field(examples=["2026-01-31T12:00:00Z"])


class SeriesQuery(BaseModel):
    """What a series is asked for by."""

    model_config = ConfigDict(extra="forbid")

    type: MetricType
    from_: TimestampMicroseconds | None = Field(
        None,
        alias="from",
        description="RFC 3339. The beginning, included; without it, an hour before the end",
        examples=["2026-01-31T11:00:00Z"],
    )
    to: TimestampMicroseconds | None = Field(
        None,
        description="RFC 3339. The end, not included; without it, that of the step now under way",
        examples=["2026-01-31T12:00:00Z"],
    )
    step: int = Field(DEFAULT_STEP_SECONDS, ge=1, description="Length of a step in seconds")


class SeriesStep(BaseModel):
    """What the points of one step come to. Without any, count is 0 and the figures are null."""

    time: str = Field(description="Where the step begins", examples=["2026-01-31T12:00:00Z"])
    count: int = Field(examples=[60])
    average: float | None = Field(
        description="Null also where the sum is beyond a double's range", examples=[40.1]
    )
    min: float | None = Field(examples=[12.0])
    max: float | None = Field(examples=[97.5])


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
    latency_ms: float | None = Field(description="Mean of a round trip; null without any", examples=[0.4])
    round_trips_per_second: float = Field(examples=[55.0])
    memory_bytes: int | None = Field(description="Null where it does not say", examples=[1_234_567])


class ExternalServiceOut(BaseModel):
    """The external service."""

    failure_rate: float | None = Field(description="Simulated; null while it is not known", examples=[0.1])


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
