"""The models of the lab's answers."""

from typing import Literal

from pydantic import BaseModel, Field


class LabCall(BaseModel):
    """The outcome of one call of the lab."""

    number: int = Field(description="Position in the run, from 1", examples=[3])
    path: str = Field(description="The path that the provider was called with", examples=["/status/500"])
    outcome: Literal["succeeded", "recovered", "fallback", "rejected"] = Field(
        description="succeeded: the provider answered the first attempt. recovered: it answered a later "
        "attempt. fallback: every attempt failed, and the fallback answered. rejected: a policy rejected the "
        "call, the provider was not called, and the fallback answered here as well",
        examples=["fallback"],
    )
    attempts: int = Field(description="The number of attempts", examples=[3])
    rejected_by: Literal["rate_limiter", "bulkhead", "circuit_breaker"] | None
    error: str | None = Field(description="The reason for the missing answer", examples=["status 500"])
    limiter_wait_ms: float = Field(description="The wait for the rate limiter", examples=[0.02])
    bulkhead_wait_ms: float = Field(description="The wait for the bulkhead", examples=[0.01])
    duration_ms: float = Field(description="The whole call, waits included", examples=[212.4])


class LabOutcomeCounts(BaseModel):
    """The number of calls with each outcome. Each call has exactly one outcome."""

    succeeded: int = Field(examples=[1])
    recovered: int = Field(description="Answered after a retry", examples=[0])
    fallback: int = Field(description="Every attempt failed, and the fallback answered", examples=[1])
    rejected: int = Field(description="A policy rejected the call, and the fallback answered", examples=[0])
    unfinished: int = Field(description="Not finished at the time limit", examples=[0])


class LabRun(LabOutcomeCounts):
    """The outcome of a run."""

    count: int = Field(examples=[2])
    duration_ms: float = Field(examples=[215.8])
    calls: list[LabCall] = Field(description="The finished calls, in the order of their start")


class StressOut(LabOutcomeCounts):
    """The result of a stress test."""

    concurrency: int = Field(examples=[20])
    duration_ms: float = Field(examples=[10_001.2])
    count: int = Field(description="Finished calls", examples=[548])
    throughput_per_second: float = Field(description="Finished calls each second", examples=[54.8])
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
    """A short form of the breaker's state."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    fail_count: int = Field(
        description="Consecutive failures; an open breaker keeps the count that opened it", examples=[5]
    )
    opened_at: str | None = Field(examples=["2026-01-31T12:00:00Z"])
