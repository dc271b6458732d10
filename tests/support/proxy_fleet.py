"""Workers of the internal proxy on a fake clock, in front of one upstream."""

import asyncio
from dataclasses import replace

import httpx

from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.paced_queue.memory import MemoryPaceStore
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.timeout import Timeout
from src.services.proxy.copies import MAX_COPY_BYTES, Copies
from src.services.proxy.service import PACE_MARGIN, Proxy, ProxyOptions, ProxyRequest, is_upstream_failure
from src.services.proxy.shared_calls import SharedCalls
from src.services.proxy.target import UpstreamTarget
from src.services.proxy.totals import ProxyCounters, ProxyTotals
from src.services.proxy.upstream import Upstream
from tests.support.listener import RecordingListener

INTERVAL = 1.0
"""Seconds between two slots, `PACE_MARGIN` included."""
TTL, STALE = 60.0, 600.0
REQUEST_TIMEOUT = 20.0
CALL_TIMEOUT = 5.0
MAX_BYTES = 2 * MAX_COPY_BYTES


class Stream(httpx.AsyncByteStream):
    """A body in these chunks; an exception among them is raised."""

    def __init__(self, *chunks):
        self._chunks = chunks

    async def __aiter__(self):
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class ProxyFleet:
    """Any number of workers. The upstream answers a path with `answers[path]`, or with a 200 and the path.

    An answer is a tuple of status, headers and chunks, or a coroutine function that returns one.

    Attributes:
        calls: Time and path of each call of the upstream.
    """

    def __init__(self, clock, capacity=100):
        self.clock = clock
        self.cache = MemoryCacheStore(clock)
        self.breakers = MemoryBreakerStore(clock)
        self.options = ProxyOptions(INTERVAL / (1 + PACE_MARGIN), REQUEST_TIMEOUT, capacity)
        self.slots = MemoryPaceStore(self.options.queue, clock)
        self.totals = ProxyTotals()
        self.calls = []
        self.answers = {}
        self.listener = RecordingListener()

    async def add(self, totals):
        self.totals += totals
        return self.totals

    async def upstream(self, request):
        path = request.url.path
        self.calls.append((round(self.clock.monotonic(), 3), path))
        answer = self.answers.get(path)
        if callable(answer):
            answer = await answer(request)
        status, headers, *chunks = answer or (200, {}, path.encode())
        return httpx.Response(status, headers=headers, stream=Stream(*chunks))

    def worker(self):
        clock = self.clock
        queue = PacedQueue(replace(self.options.queue, max_wait_seconds=86_400), self.slots, clock)
        breaker_options = CircuitBreakerOptions(failure_threshold=2, open_seconds=30)
        breaker = CircuitBreaker(
            "proxy", self.breakers, breaker_options, clock, is_failure=is_upstream_failure
        )
        copy_options = CacheOptions(ttl_seconds=TTL, stale_seconds=STALE, lease_seconds=CALL_TIMEOUT + 5)
        copies = Copies(self.cache, copy_options, clock)
        upstream = Upstream(
            httpx.AsyncClient(transport=httpx.MockTransport(self.upstream)),
            clock,
            queue.postpone,
            interval_seconds=self.options.interval_seconds,
            max_body_bytes=MAX_BYTES,
        )
        calls = SharedCalls(
            upstream=upstream,
            queue=queue,
            breaker=breaker,
            timeout=Timeout(CALL_TIMEOUT, clock),
            copies=copies,
            clock=clock,
        )
        proxy = Proxy(
            target=UpstreamTarget("http://upstream.example"),
            calls=calls,
            copies=copies,
            queue=queue,
            breaker=breaker,
            counters=ProxyCounters(self, clock),
            clock=clock,
            options=self.options,
            listener=self.listener,
        )
        proxy.queue = queue
        return proxy


def get(path, *, method="GET", priority=0, **headers):
    """A request; `cache_control="no-cache"` is a header."""
    given = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return ProxyRequest(method, path.encode(), headers=given, request_id=b"id", priority=priority)


def send(proxy, *requests):
    """Send requests at the same time, and return their tasks."""
    return [asyncio.create_task(proxy.answer(request)) for request in requests]


async def body(answer):
    return b"".join([chunk async for chunk in answer.buffer.body()])


async def status(answer):
    return (await answer.buffer.head()).status
