"""What goes over the wire: request models that validate, and answers as the documentation shows them."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticCustomError

from src.analytics.points import Point, parse_timestamp

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


class FailureRate(BaseModel):
    """The simulated failure rate of the external service."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"failure_rate": 0.3}]})

    failure_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


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
