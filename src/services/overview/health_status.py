"""The status of the service in one line: the worst of all findings.

The worst findings are those with failed requests, then those with degraded answers, then those that can lead
to either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from src.resilience.circuit_breaker.store import BreakerState, BreakerStatus
from src.services.access.admission import OutagePolicy
from src.services.overview.counter_store import CounterReading, Outage
from src.services.proxy.service import ProxyStatus

MANY_ERRORS = 0.05
"""The largest share of answers with a status of 500 or above that is not a finding."""

QUEUE_PAUSED_SECONDS = 2.0
"""The longest wait for the proxy's next slot, in seconds beyond one interval, that is not a finding."""

Code = Literal[
    "REDIS_UNAVAILABLE", "REDIS_REFUSES", "BREAKER_OPEN", "SERVER_ERRORS",
    "BREAKER_HALF_OPEN", "LIMITER_OPEN", "PROXY_BREAKER_OPEN", "PROXY_QUEUE_FULL",
    "PROXY_QUEUE_PAUSED", "PROXY_BREAKER_HALF_OPEN", "ALL_WELL",
]  # fmt: skip
"""The findings, the worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding.

    Attributes:
        level: "critical" if requests fail, "warning" if answers are degraded.
        code: The fixed name of the finding.
        message: The finding as text.
    """

    level: Literal["ok", "warning", "critical"]
    code: Code
    message: str


def worst_finding(
    counters: CounterReading,
    breaker: BreakerStatus,
    proxy: ProxyStatus | None,
    *,
    now: float,
    monotonic: float,
    outage_policy: OutagePolicy = "open",
) -> Finding:
    """Return the worst finding.

    Args:
        counters: The counts of the last seconds.
        breaker: The state of the external service's circuit breaker.
        proxy: The state of the proxy; None if there is no proxy.
        now: Unix time, from which the opening of the breaker is subtracted.
        monotonic: A monotonic reading, from which the beginning of an outage is subtracted.
        outage_policy: The policy of the rate limiter while Redis is unavailable.
    """
    outage = counters.outage
    if outage is not None:
        return _outage_finding(outage, monotonic, outage_policy)
    return next(_findings(counters, breaker, proxy, now))


def _findings(
    counters: CounterReading,
    breaker: BreakerStatus,
    proxy: ProxyStatus | None,
    now: float,
) -> Iterator[Finding]:
    """Yield all findings while Redis is available, the worst first."""
    if breaker.state is BreakerState.OPEN:
        yield _open_breaker_finding(breaker, now)
    errors, requests = counters.counts["errors"], counters.counts["requests"]
    if errors > MANY_ERRORS * requests:
        message = f"{100 * errors / requests:.0f} % of requests fail with a server error"
        yield Finding("critical", "SERVER_ERRORS", message)
    if breaker.state is BreakerState.HALF_OPEN:
        message = "Breaker half-open: the next call shows whether the external service has recovered"
        yield Finding("warning", "BREAKER_HALF_OPEN", message)
    if counters.counts["bypassed"]:
        rate = f"{counters.per_second('bypassed'):.1f}"
        message = f"Rate limiter open: {rate} requests per second are admitted without a decision"
        yield Finding("warning", "LIMITER_OPEN", message)
    if proxy is not None:
        yield from _proxy_findings(proxy)
    yield Finding("ok", "ALL_WELL", "All well")


def _proxy_findings(proxy: ProxyStatus) -> Iterator[Finding]:
    queue = proxy.queue
    if proxy.breaker.state == BreakerState.OPEN:
        message = "Proxy breaker open: the upstream fails, and available copies are served"
        yield Finding("warning", "PROXY_BREAKER_OPEN", message)
    if proxy.is_full and queue.size:
        oldest = _format_duration(queue.oldest_age_seconds or 0)
        message = f"Proxy queue full: {queue.size} calls wait, the oldest for {oldest}"
        yield Finding("warning", "PROXY_QUEUE_FULL", message)
    if queue.next_slot_seconds > proxy.interval_seconds + QUEUE_PAUSED_SECONDS:
        pause = f"{queue.next_slot_seconds:.0f} s"
        message = (
            f"Proxy queue paused: the upstream demands a pause of {pause} more, and {queue.size} calls wait"
        )
        yield Finding("warning", "PROXY_QUEUE_PAUSED", message)
    if proxy.breaker.state == BreakerState.HALF_OPEN:
        message = "Proxy breaker half-open: the next call shows whether the upstream has recovered"
        yield Finding("warning", "PROXY_BREAKER_HALF_OPEN", message)


_OUTAGE_EFFECTS: dict[OutagePolicy, str] = {
    "open": "no quota applies",
    "local": "each worker applies its share of the quotas",
    "closed": "requests with a quota are rejected",
}
"""The effect of each policy of the rate limiter."""


def _outage_finding(outage: Outage, monotonic: float, outage_policy: OutagePolicy) -> Finding:
    duration = _format_duration(monotonic - outage.began_at)
    if outage.kind == "refuses":
        message = f"Redis has rejected writes for {duration}: nothing is stored; figures of one worker only"
        return Finding("critical", "REDIS_REFUSES", message)
    effect = _OUTAGE_EFFECTS[outage_policy]
    message = f"Redis unavailable for {duration}: nothing is stored, {effect}; figures of one worker only"
    return Finding("critical", "REDIS_UNAVAILABLE", message)


def _open_breaker_finding(breaker: BreakerStatus, now: float) -> Finding:
    duration = _format_duration(now - (breaker.opened_at or now))
    if breaker.retry_after is None:
        message = f"Breaker forced open for {duration}: external service not called, stale summaries served"
    else:
        message = f"Breaker open for {duration}: external service failing, stale summaries served"
    return Finding("critical", "BREAKER_OPEN", message)


def _format_duration(seconds: float) -> str:
    """Return a duration as text. It is 0 if clocks of two machines differ and `seconds` is negative."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h"
