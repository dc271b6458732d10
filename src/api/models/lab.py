"""The lab's runs over the wire."""

from typing import Literal

from pydantic import BaseModel, Field


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
    fallback: int = Field(description="Called in vain; the fallback stood in", examples=[1])
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
    rejected_p50_ms: float | None = Field(
        description="Latency of the calls that the bulkhead or the circuit breaker rejected, without the "
        "wait for the rate limiter; null without such calls",
        examples=[0.4],
    )
    rejected_p95_ms: float | None = Field(examples=[0.9])


class CircuitStateOut(BaseModel):
    """The breaker in three words."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    fail_count: int = Field(description="Failures in a row, or those that opened it", examples=[5])
    opened_at: str | None = Field(examples=["2026-01-31T12:00:00Z"])
