"""The findings about the service, and their order."""

from dataclasses import replace
from typing import get_args

import pytest

from src.resilience.circuit_breaker.store import BreakerState, BreakerStatus
from src.resilience.paced_queue.store import PaceStatus
from src.services.overview.counter_store import CounterReading, CounterSnapshot, Outage
from src.services.overview.health_status import QUEUE_PAUSED_SECONDS, Code, Finding, worst_finding
from src.services.proxy.service import ProxyStatus
from src.services.proxy.totals import ProxyTotals

NOW, MONOTONIC = 1_800_000_000.0, 500.0

QUIET = CounterReading(CounterSnapshot({"requests": 100, "allowed": 90, "refused": 10}), 2)
CLOSED = BreakerStatus(BreakerState.CLOSED, "external-service", 0, 10, 0.0, None, None, ())
OPEN = replace(CLOSED, state=BreakerState.OPEN, opened_at=NOW - 12.7, retry_after=17.3)
HALF_OPEN = replace(CLOSED, state=BreakerState.HALF_OPEN, opened_at=NOW - 40)


def proxy_status(
    queue_size=7,
    *,
    oldest_age_seconds=6.2,
    interval_seconds=1.0,
    next_slot_seconds=0.4,
    breaker=BreakerState.CLOSED,
    is_full=False,
) -> ProxyStatus:
    queue = PaceStatus("fifo", queue_size, 100, oldest_age_seconds, next_slot_seconds)
    upstream = replace(CLOSED, name="proxy", state=breaker)
    return ProxyStatus(queue, is_full, ProxyTotals(), upstream, interval_seconds)


def judge(counters=QUIET, breaker=CLOSED, proxy=None, **options) -> Finding:
    return worst_finding(counters, breaker, proxy, now=NOW, monotonic=MONOTONIC, **options)


def counters_with(**values) -> CounterReading:
    return CounterReading(CounterSnapshot(values), 1)


UNAVAILABLE = replace(QUIET, outage=Outage(MONOTONIC - 75, "unavailable"))
REFUSES = replace(QUIET, outage=Outage(MONOTONIC - 3, "refuses"))
FAILING = counters_with(requests=100, errors=12)
BYPASSING = counters_with(requests=100, bypassed=25)
PROXY_OPEN = proxy_status(breaker=BreakerState.OPEN)
PROXY_FULL = proxy_status(queue_size=52, oldest_age_seconds=43.9, is_full=True)
PROXY_HELD = proxy_status(queue_size=3, next_slot_seconds=238.4)
PROXY_HALF_OPEN = proxy_status(breaker=BreakerState.HALF_OPEN)


@pytest.mark.parametrize(
    "proxy",
    [
        None,
        proxy_status(),
        proxy_status(queue_size=99),
        proxy_status(0, oldest_age_seconds=None, is_full=True),
        proxy_status(0, oldest_age_seconds=None),
        proxy_status(next_slot_seconds=1 + QUEUE_PAUSED_SECONDS),
        proxy_status(interval_seconds=300, next_slot_seconds=238.4),
    ],
)
def test_without_findings_the_status_is_healthy(proxy):
    assert judge(proxy=proxy) == Finding("ok", "ALL_WELL", "All well")


@pytest.mark.parametrize(
    ("policy", "quotas"),
    [
        ("open", "no quota applies"),
        ("local", "each worker applies its share of the quotas"),
        ("closed", "requests with a quota are rejected"),
    ],
)
def test_the_finding_of_an_outage_describes_the_quotas(policy, quotas):
    finding = judge(counters=UNAVAILABLE, outage_policy=policy)
    assert (
        finding.message
        == f"Redis unavailable for 75 s: nothing is stored, {quotas}; figures of one worker only"
    )


@pytest.mark.parametrize(
    ("given", "level", "code", "message"),
    [
        (
            {"counters": UNAVAILABLE}, "critical", "REDIS_UNAVAILABLE",
            "Redis unavailable for 75 s: nothing is stored, no quota applies; figures of one worker only",
        ),
        (
            {"counters": REFUSES}, "critical", "REDIS_REFUSES",
            "Redis has rejected writes for 3 s: nothing is stored; figures of one worker only",
        ),
        (
            {"breaker": OPEN}, "critical", "BREAKER_OPEN",
            "Breaker open for 12 s: external service failing, stale summaries served",
        ),
        (
            {"breaker": replace(OPEN, retry_after=None)}, "critical", "BREAKER_OPEN",
            "Breaker forced open for 12 s: external service not called, stale summaries served",
        ),
        (
            {"counters": FAILING}, "critical", "SERVER_ERRORS",
            "12 % of requests fail with a server error",
        ),
        (
            {"breaker": HALF_OPEN}, "warning", "BREAKER_HALF_OPEN",
            "Breaker half-open: the next call shows whether the external service has recovered",
        ),
        (
            {"counters": BYPASSING}, "warning", "LIMITER_OPEN",
            "Rate limiter open: 2.5 requests per second are admitted without a decision",
        ),
        (
            {"proxy": PROXY_OPEN}, "warning", "PROXY_BREAKER_OPEN",
            "Proxy breaker open: the upstream fails, and available copies are served",
        ),
        (
            {"proxy": PROXY_FULL}, "warning", "PROXY_QUEUE_FULL",
            "Proxy queue full: 52 calls wait, the oldest for 43 s",
        ),
        (
            {"proxy": PROXY_HELD}, "warning", "PROXY_QUEUE_PAUSED",
            "Proxy queue paused: the upstream demands a pause of 238 s more, and 3 calls wait",
        ),
        (
            {"proxy": proxy_status(0, next_slot_seconds=238.4, is_full=True)},
            "warning", "PROXY_QUEUE_PAUSED",
            "Proxy queue paused: the upstream demands a pause of 238 s more, and 0 calls wait",
        ),
        (
            {"proxy": PROXY_HALF_OPEN}, "warning", "PROXY_BREAKER_HALF_OPEN",
            "Proxy breaker half-open: the next call shows whether the upstream has recovered",
        ),
    ],
)  # fmt: skip
def test_each_finding_has_a_message(given, level, code, message):
    assert judge(**given) == Finding(level, code, message)


def test_the_status_is_the_worst_finding():
    everything = replace(counters_with(requests=100, errors=50, bypassed=9), outage=UNAVAILABLE.outage)
    both = proxy_status(100, is_full=True, breaker=BreakerState.OPEN)
    held = {"next_slot_seconds": 99, "breaker": BreakerState.HALF_OPEN}
    findings = [
        judge(everything, OPEN, both).code,
        judge(replace(everything, outage=REFUSES.outage), OPEN, both).code,
        judge(replace(everything, outage=None), OPEN, both).code,
        judge(replace(everything, outage=None), HALF_OPEN, both).code,
        judge(BYPASSING, HALF_OPEN, both).code,
        judge(BYPASSING, CLOSED, both).code,
        judge(QUIET, CLOSED, both).code,
        judge(QUIET, CLOSED, proxy_status(100, is_full=True, **held)).code,
        judge(QUIET, CLOSED, proxy_status(**held)).code,
        judge(QUIET, CLOSED, PROXY_HALF_OPEN).code,
        judge().code,
    ]
    assert findings == [
        "REDIS_UNAVAILABLE", "REDIS_REFUSES", "BREAKER_OPEN", "SERVER_ERRORS", "BREAKER_HALF_OPEN",
        "LIMITER_OPEN", "PROXY_BREAKER_OPEN", "PROXY_QUEUE_FULL", "PROXY_QUEUE_PAUSED",
        "PROXY_BREAKER_HALF_OPEN", "ALL_WELL",
    ]  # fmt: skip
    assert findings == list(get_args(Code))


@pytest.mark.parametrize(
    ("errors", "requests", "code"),
    [(5, 100, "ALL_WELL"), (6, 100, "SERVER_ERRORS"), (1, 1, "SERVER_ERRORS"), (0, 0, "ALL_WELL")],
)
def test_a_small_share_of_errors_is_not_a_finding(errors, requests, code):
    assert judge(counters_with(requests=requests, errors=errors)).code == code


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (90_000, "25 h"),
    ],
)
def test_durations_are_in_seconds_minutes_or_hours(seconds, text):
    assert judge(breaker=replace(OPEN, opened_at=NOW - seconds)).message.startswith(
        f"Breaker open for {text}:"
    )
