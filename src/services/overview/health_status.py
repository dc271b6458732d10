"""The status of the service in one line: the worst of all findings about its figures.

Findings that make the service reject clients come first, then findings that degrade answers, then findings
that may lead to either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from src.resilience.circuit_breaker.store import BreakerState, BreakerStatus
from src.services.access.admission import WithoutStore
from src.services.overview.counter_store import CounterReading, Outage
from src.services.proxy.service import ProxyStatus

MANY_ERRORS = 0.05
"""The share of answers with a status from 500 on, above which there is a finding."""

LINE_HELD_SECONDS = 2.0
"""How many seconds beyond one interval the proxy's next slot may be away before there is a finding."""

Code = Literal[
    "REDIS_AWAY", "REDIS_REFUSES", "BREAKER_OPEN", "SERVER_ERRORS",
    "BREAKER_HALF_OPEN", "LIMITER_OPEN", "PROXY_BREAKER_OPEN", "PROXY_LINE_FULL",
    "PROXY_LINE_HELD", "PROXY_BREAKER_HALF_OPEN", "ALL_WELL",
]  # fmt: skip
"""The findings, the worst first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding.

    Attributes:
        level: "critical" if clients are rejected, "warning" if answers are degraded.
        code: The fixed name of the finding.
        message: The finding in words.
    """

    level: Literal["ok", "warning", "critical"]
    code: Code
    message: str


def verdict(
    counters: CounterReading,
    breaker: BreakerStatus,
    proxy: ProxyStatus | None,
    *,
    now: float,
    monotonic: float,
    without_store: WithoutStore = "open",
) -> Verdict:
    """Return the worst finding.

    Args:
        counters: The counts of the last seconds.
        breaker: The circuit breaker of the external service.
        proxy: The proxy; None where there is none.
        now: Unix time, which the time since the breaker opened is measured by.
        monotonic: The monotonic clock, which the outage of Redis is measured by.
        without_store: The policy of the rate limiter while Redis is unavailable.
    """
    outage = counters.outage
    if outage is not None:
        return _of_outage(outage, monotonic, without_store)
    return next(_findings(counters, breaker, proxy, now))


def _findings(
    counters: CounterReading,
    breaker: BreakerStatus,
    proxy: ProxyStatus | None,
    now: float,
) -> Iterator[Verdict]:
    """Yield what is true while Redis is well, the worst first."""
    if breaker.state is BreakerState.OPEN:
        yield _of_open_breaker(breaker, now)
    errors, requests = counters.counts["errors"], counters.counts["requests"]
    if errors > MANY_ERRORS * requests:
        message = f"{100 * errors / requests:.0f} % of requests end in an error of the server"
        yield Verdict("critical", "SERVER_ERRORS", message)
    if breaker.state is BreakerState.HALF_OPEN:
        message = "Breaker half-open: the next call shows whether the external service is back"
        yield Verdict("warning", "BREAKER_HALF_OPEN", message)
    if counters.counts["bypassed"]:
        passed = f"{counters.per_second('bypassed'):.1f} requests a second let through unexamined"
        yield Verdict("warning", "LIMITER_OPEN", f"Rate limiter open: {passed}")
    if proxy is not None:
        yield from _of_proxy(proxy)
    yield Verdict("ok", "ALL_WELL", "All well")


def _of_proxy(proxy: ProxyStatus) -> Iterator[Verdict]:
    queue = proxy.queue
    if proxy.breaker.state == BreakerState.OPEN:
        message = "Proxy's breaker open: its upstream is failing, copies served where there are any"
        yield Verdict("warning", "PROXY_BREAKER_OPEN", message)
    if proxy.is_full and queue.size:
        waits = f"{queue.size} wait, the first of them {_for(queue.oldest_age_seconds or 0)}"
        yield Verdict("warning", "PROXY_LINE_FULL", f"Proxy queue full: {waits}")
    if queue.next_slot_seconds > proxy.interval_seconds + LINE_HELD_SECONDS:
        left = f"{queue.next_slot_seconds:.0f} s left, {queue.size} in the queue"
        yield Verdict("warning", "PROXY_LINE_HELD", f"Proxy queue held: the upstream asked to wait, {left}")
    if proxy.breaker.state == BreakerState.HALF_OPEN:
        message = "Proxy's breaker half-open: the next call shows whether its upstream is back"
        yield Verdict("warning", "PROXY_BREAKER_HALF_OPEN", message)


_QUOTAS_WITHOUT_STORE: dict[WithoutStore, str] = {
    "open": "no quota applies",
    "local": "each worker keeps its share of the quotas",
    "closed": "what has a quota is refused",
}


def _of_outage(outage: Outage, monotonic: float, without_store: WithoutStore) -> Verdict:
    lasted = _for(monotonic - outage.began_at)
    if outage.kind == "refuses":
        message = f"Redis has refused writes {lasted}: nothing is stored; figures of one worker only"
        return Verdict("critical", "REDIS_REFUSES", message)
    quotas = _QUOTAS_WITHOUT_STORE[without_store]
    message = f"Redis unavailable {lasted}: nothing is stored, {quotas}; figures of one worker only"
    return Verdict("critical", "REDIS_AWAY", message)


def _of_open_breaker(breaker: BreakerStatus, now: float) -> Verdict:
    lasted = _for(now - (breaker.opened_at or now))
    if breaker.retry_after is None:  # only an order closes it
        message = f"Breaker held open by hand {lasted}: external service not called, summaries served stale"
    else:
        message = f"Breaker open {lasted}: external service failing, summaries served stale"
    return Verdict("critical", "BREAKER_OPEN", message)


def _for(seconds: float) -> str:
    """Say how long something has lasted; clocks of two machines may differ, and then it has just begun."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"for {whole} s"
    if whole < 2 * 3600:
        return f"for {whole // 60} min"
    return f"for {whole // 3600} h"
