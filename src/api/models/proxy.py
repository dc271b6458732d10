"""The models of the proxy's state and policy."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from src.services.proxy.service import ProxyStatus


class ProxyPolicy(BaseModel):
    """The policy of the proxy's queue."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"policy": "priority"}]})

    policy: Literal["fifo", "priority"] = Field(
        description="fifo: in order of arrival. priority: by priority, which improves during the wait"
    )


class ProxyBreaker(BaseModel):
    """The state of the upstream's circuit breaker."""

    state: Literal["CLOSED", "OPEN", "HALF_OPEN"]
    retry_after: float | None = Field(
        description="Seconds until the next call may be let through", examples=[None]
    )


class ProxyStatusOut(BaseModel):
    """The state of the proxy over all workers. The counts cover all requests since the first start."""

    policy: Literal["fifo", "priority"]
    interval_seconds: float = Field(
        description="Least time between two calls of the upstream", examples=[1.0]
    )
    queue_size: int = Field(description="Number of calls in the queue", examples=[7])
    capacity: int = Field(description="The largest number of calls that the queue holds", examples=[100])
    oldest_age_seconds: float | None = Field(
        description="How long the oldest call has been in the queue; null if the queue is empty",
        examples=[6.21],
    )
    next_turn_seconds: float = Field(
        description="Time until the next call may start. After a Retry-After it can exceed the interval",
        examples=[0.35],
    )
    requests: int = Field(description="All requests, including those that still wait", examples=[120])
    successes: int = Field(description="Answered by the upstream, with any status below 500", examples=[70])
    failures: int = Field(description="Answered with an error of the proxy", examples=[1])
    fallbacks: int = Field(description="Answered with a stale copy instead of an error", examples=[2])
    cache_hits: int = Field(description="Answered with a fresh copy", examples=[40])
    mean_latency_ms: float | None = Field(
        description="Time from the arrival of a request to the head of its answer, the wait included",
        examples=[2310.4],
    )
    breaker: ProxyBreaker

    @classmethod
    def from_status(cls, status: ProxyStatus) -> "ProxyStatusOut":
        """Return the answer for `status`."""
        queue, totals, breaker = status.queue, status.totals, status.breaker
        return cls(
            policy=queue.policy,
            interval_seconds=status.interval_seconds,
            queue_size=queue.size,
            capacity=queue.capacity,
            oldest_age_seconds=queue.oldest_age_seconds,
            next_turn_seconds=queue.next_slot_seconds,
            requests=totals.requests,
            successes=totals.successes,
            failures=totals.failures,
            fallbacks=totals.fallbacks,
            cache_hits=totals.cache_hits,
            mean_latency_ms=totals.mean_latency_ms,
            breaker=ProxyBreaker(state=breaker.state, retry_after=breaker.retry_after),
        )
