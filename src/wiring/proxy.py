"""The parts of the internal proxy, from its HTTP client to its queue."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from src.config.settings import Settings
from src.resilience.cache.options import CacheOptions
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.clock import Clock
from src.resilience.events import Listener
from src.resilience.paced_queue.failover import FailoverPaceStore
from src.resilience.paced_queue.options import MAX_SECONDS, PacedQueueOptions
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.paced_queue.redis import RedisPaceStore
from src.resilience.timeout import Timeout
from src.services.proxy.copies import Copies
from src.services.proxy.service import NAME, Proxy, ProxyOptions, is_upstream_failure
from src.services.proxy.shared_calls import SharedCalls
from src.services.proxy.target import UpstreamTarget
from src.services.proxy.totals import ProxyCounters
from src.services.proxy.upstream import Upstream
from src.services.single_use_transport import SingleUseTransport
from src.storage.fleet.proxy_totals import RedisProxyTotals
from src.storage.patterns.batched_cache_store import BatchedCacheStore
from src.storage.redis.link import PROBE_INTERVAL_SECONDS, RedisLink
from src.wiring.exit_signal import on_exit_signal
from src.wiring.external_service import create_breaker_store, external_service_url


@asynccontextmanager
async def running_proxy(
    settings: Settings,
    link: RedisLink,
    provider: httpx.ASGITransport | None,
    clock: Clock,
    listener: Listener,
) -> AsyncIterator[Proxy]:
    """Run the proxy.

    Args:
        settings: The settings of the service.
        link: The connection to Redis.
        provider: The provider in this process. It is the upstream if the settings name none.
        clock: The clock of all parts.
        listener: Called with the events of the proxy's policies.
    """
    options = ProxyOptions(
        settings.proxy_rate_limit_seconds, settings.proxy_request_timeout_seconds, settings.queue_max_size
    )
    queue = _queue(options.queue, settings, link, clock, listener)
    counters = ProxyCounters(RedisProxyTotals(link), clock)
    async with _client(None if settings.proxy_upstream_url else provider) as client:
        breaker = _breaker(settings, link, clock, listener)
        copies = Copies(BatchedCacheStore(link), _copy_options(settings), clock)
        upstream = Upstream(
            client,
            clock,
            queue.postpone,
            interval_seconds=options.interval_seconds,
            max_body_bytes=settings.proxy_max_body_bytes,
        )
        calls = SharedCalls(
            upstream=upstream,
            queue=queue,
            breaker=breaker,
            timeout=Timeout(settings.proxy_upstream_timeout, clock, name=NAME, listener=listener),
            copies=copies,
            clock=clock,
        )
        proxy = Proxy(
            target=UpstreamTarget(str(settings.proxy_upstream_url or external_service_url(settings))),
            calls=calls,
            copies=copies,
            queue=queue,
            breaker=breaker,
            counters=counters,
            clock=clock,
            options=options,
            listener=listener,
        )
        with on_exit_signal(queue.close, clock, settings.shutdown_delay_seconds):
            async with aclosing(counters), aclosing(queue), aclosing(proxy):
                yield proxy


def _queue(
    options: PacedQueueOptions, settings: Settings, link: RedisLink, clock: Clock, listener: Listener
) -> PacedQueue:
    fleet = RedisPaceStore(NAME, options, link)
    store = FailoverPaceStore(
        fleet, options, clock, workers=settings.web_concurrency, notice_seconds=PROBE_INTERVAL_SECONDS
    )
    # The store rejects calls whose slot would come too late. A call in the queue stays there while any
    # request waits for it, and each request has its own timeout.
    unlimited = replace(options, max_wait_seconds=MAX_SECONDS)
    return PacedQueue(unlimited, store, clock, name=NAME, listener=listener)


def _breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    options = CircuitBreakerOptions(
        failure_threshold=settings.proxy_circuit_breaker_fail_max,
        open_seconds=settings.proxy_circuit_breaker_reset_timeout,
        probe_lease_seconds=_longest_call_seconds(settings),
    )
    store = create_breaker_store(link, clock)
    return CircuitBreaker(NAME, store, options, clock, listener=listener, is_failure=is_upstream_failure)


def _copy_options(settings: Settings) -> CacheOptions:
    return CacheOptions(
        ttl_seconds=settings.proxy_cache_ttl_seconds,
        stale_seconds=settings.cache_stale_seconds,
        lease_seconds=_longest_call_seconds(settings),
    )


def _client(provider: httpx.ASGITransport | None) -> httpx.AsyncClient:
    """Return a client that keeps nothing between calls, neither cookies nor connections."""
    return httpx.AsyncClient(
        transport=provider or SingleUseTransport(),
        timeout=None,  # noqa: S113 -- the proxy's own timeout applies to each call
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    )


def _longest_call_seconds(settings: Settings) -> float:
    return settings.proxy_upstream_timeout + 5
