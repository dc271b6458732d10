"""The reports of the lab: the outcome of each call, of a run and of a stress test."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from src.analytics.sketch import LogBinSketch
from src.resilience.errors import BulkheadFullError, CircuitOpenError, RateLimitedError, RejectedError

CallOutcome = Literal["succeeded", "recovered", "fallback", "rejected"]
"""The outcome of a call, exactly one of:

- succeeded: the provider answered the first attempt.
- recovered: the provider answered a later attempt.
- fallback: the provider was called, every attempt failed, and the fallback answered.
- rejected: the limiter, the bulkhead or the breaker rejected the call, so the provider was not called; the
  fallback answered here as well.
"""

RejectingPolicy = Literal["rate_limiter", "bulkhead", "circuit_breaker"]

_REJECTING_POLICIES: Final[dict[type[object], RejectingPolicy]] = {
    RateLimitedError: "rate_limiter",
    BulkheadFullError: "bulkhead",
    CircuitOpenError: "circuit_breaker",
}


@dataclass(frozen=True, slots=True)
class CallReport:
    """The outcome of one call.

    Attributes:
        number: Position in the run, from 1.
        path: The path that the provider was called with.
        outcome: The outcome; `CallOutcome` describes the values.
        attempts: The number of attempts that called the provider.
        rejected_by: The policy that rejected the call, with the outcome "rejected" only.
        error: Why the provider gave no answer, with the outcomes "fallback" and "rejected" only.
        limiter_wait_ms: Time spent waiting for the rate limiter.
        bulkhead_wait_ms: Time spent waiting for the bulkhead.
        duration_ms: Time of the whole call, waits included.
    """

    number: int
    path: str
    outcome: CallOutcome
    attempts: int
    rejected_by: RejectingPolicy | None
    error: str | None
    limiter_wait_ms: float
    bulkhead_wait_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeCounts:
    """The number of calls with each `CallOutcome`, and of calls unfinished at the time limit."""

    succeeded: int
    recovered: int
    fallback: int
    rejected: int
    unfinished: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport(OutcomeCounts):
    """The outcome of a run of `count` calls. `calls` has the finished calls, in order."""

    count: int
    duration_ms: float
    calls: Sequence[CallReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class StressReport(OutcomeCounts):
    """The result of a stress test. Each latency is exact within 1 %, and None without calls.

    Attributes:
        concurrency: Concurrent calls.
        duration_ms: The duration of the test.
        count: The number of finished calls.
        throughput_per_second: The number of finished calls per second.
        p50_ms: Median latency of all finished calls, waits included.
        p95_ms: 95th percentile of these latencies.
        p99_ms: 99th percentile of these latencies.
        rejected_p50_ms: Median latency of the calls that the bulkhead or the breaker rejected, without the
            wait for the rate limiter, which comes before both.
        rejected_p95_ms: 95th percentile of the latencies of these rejected calls.
    """

    concurrency: int
    duration_ms: float
    count: int
    throughput_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    rejected_p50_ms: float | None
    rejected_p95_ms: float | None


def run_report(calls: Sequence[CallReport], *, count: int, seconds: float) -> RunReport:
    """Return the report of a run of `count` calls, of which `calls` finished within `seconds`."""
    return RunReport(
        **_outcome_counts(calls, count),
        count=count,
        duration_ms=milliseconds(seconds),
        calls=sorted(calls, key=lambda call: call.number),
    )


def stress_report(
    calls: Sequence[CallReport], *, started: int, concurrency: int, seconds: float
) -> StressReport:
    """Return the report of a stress test in which `started` calls started and `calls` finished."""
    latencies = LogBinSketch.from_values(call.duration_ms for call in calls)
    rejections = LogBinSketch.from_values(
        call.duration_ms - call.limiter_wait_ms
        for call in calls
        if call.rejected_by in {"bulkhead", "circuit_breaker"}
    )
    return StressReport(
        **_outcome_counts(calls, started),
        concurrency=concurrency,
        duration_ms=milliseconds(seconds),
        count=len(calls),
        throughput_per_second=round(len(calls) / seconds, 1),
        p50_ms=_quantile(latencies, 0.50),
        p95_ms=_quantile(latencies, 0.95),
        p99_ms=_quantile(latencies, 0.99),
        rejected_p50_ms=_quantile(rejections, 0.50),
        rejected_p95_ms=_quantile(rejections, 0.95),
    )


def call_outcome(error: Exception | None, attempts: int) -> CallOutcome:
    """Return the outcome of a call that ended with `error` after `attempts` attempts."""
    if isinstance(error, RejectedError):
        return "rejected"
    if error is not None:
        return "fallback"
    return "succeeded" if attempts == 1 else "recovered"


def rejecting_policy(error: Exception | None) -> RejectingPolicy | None:
    """Return the policy that rejected a call with `error`; None if no policy rejected the call."""
    return _REJECTING_POLICIES.get(type(error))


def milliseconds(seconds: float) -> float:
    """Return `seconds` in milliseconds, rounded to a hundredth."""
    return round(seconds * 1000, 2)


def _outcome_counts(calls: Sequence[CallReport], started: int) -> dict[str, int]:
    outcomes = Counter(call.outcome for call in calls)
    return {outcome: outcomes[outcome] for outcome in get_args(CallOutcome)} | {
        "unfinished": started - len(calls)
    }


def _quantile(sketch: LogBinSketch, q: float) -> float | None:
    value = sketch.quantile(q)
    return None if value is None else round(value, 2)
