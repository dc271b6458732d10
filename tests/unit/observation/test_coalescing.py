"""Cache hits and misses are coalesced, and other events are passed on at once."""

import asyncio

from src.observation.coalescing import CoalescingListener
from src.resilience.events import CacheAnswered, Rejected

HIT = CacheAnswered(policy="summary", outcome="hit")
MISS = CacheAnswered(policy="summary", outcome="miss")
HIT_ELSEWHERE = CacheAnswered(policy="proxy", outcome="hit")


async def test_hits_and_misses_are_coalesced_at_the_end_of_the_tick(listener):
    coalesce = CoalescingListener(listener)
    for event in (HIT, MISS, HIT, HIT_ELSEWHERE, HIT):
        coalesce(event)
    assert listener.events == []
    await asyncio.sleep(0)
    assert listener.events == [CacheAnswered(policy="summary", times=3, outcome="hit"), MISS, HIT_ELSEWHERE]


async def test_other_events_are_passed_on_at_once(listener):
    """The context is that of the request, so that a log line of the event has the request's id."""
    events = [
        CacheAnswered(policy="summary", outcome="stale"),
        Rejected(policy="external-service", retry_after=1.0),
        Rejected(policy="external-service", retry_after=1.0),
    ]
    coalesce = CoalescingListener(listener)
    for event in events:
        coalesce(event)
    assert listener.events == events
