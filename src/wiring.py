"""Where the parts are joined: settings become options, options become parts, parts become an app."""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import FrameType
from typing import ParamSpec

import httpx
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from src.api import errors, openapi
from src.api.admin_access import AdminAccess
from src.api.client_address import ClientAddress
from src.api.dependencies import BodyLimits, State
from src.api.middleware.fast_lane import FastLaneMiddleware
from src.api.middleware.request_context import RequestContext, RequestContextMiddleware
from src.api.models import ProxyStatusOut
from src.api.routes import (
    admin,
    circuit_breaker,
    dashboard,
    events,
    health,
    lab,
    metrics,
    overview,
    proxy,
    series,
    telemetry,
)
from src.config.settings import InvalidSettingsError, Settings, load_settings
from src.provider.app import create_provider_app
from src.provider.faults import Faults
from src.resilience.breaker_store import CircuitBreakerOptions
from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.cache import ReadThroughCache
from src.resilience.cache_store import CacheOptions
from src.resilience.circuit_breaker import CircuitBreaker
from src.resilience.clock import Clock, SystemClock, SystemRandomizer
from src.resilience.errors import CircuitOpenError
from src.resilience.events import Listener, Listeners
from src.resilience.memory_breaker_store import MemoryBreakerStore
from src.resilience.memory_rate_limiter import memory_rate_limiter
from src.resilience.pace_store import MAX_SECONDS, PacedQueueOptions
from src.resilience.paced_queue import PacedQueue
from src.resilience.pipeline import Pipeline
from src.resilience.rate_limiter import Quota, RateLimit, RateLimitOptions
from src.resilience.retry import Retry, RetryOptions
from src.resilience.timeout import Timeout
from src.services.admission import Admission
from src.services.event_feed import EventFeed, EventRecorder
from src.services.external_service import (
    ExternalService,
    ExternalServiceUnavailableError,
    is_failure,
    is_worth_retrying,
)
from src.services.lab import Lab
from src.services.metrics import MetricService
from src.services.overview import OverviewService
from src.services.proxy import PACE_MARGIN, Proxy, is_upstream_failure
from src.services.proxy_totals import ProxyTally
from src.services.pulse import Pulse, PulseReporter
from src.services.pulse_store import FailoverPulseStore, MemoryPulseStore, PulseStore
from src.services.series import SeriesService
from src.services.summary import SummaryService
from src.services.upstream import Upstream
from src.services.upstream_target import UpstreamTarget
from src.storage.breaker_store import FailoverBreakerStore, RedisBreakerStore
from src.storage.cache_store import RedisCacheStore
from src.storage.client import RedisAddress, RedisLink, connect, connect_in_process
from src.storage.embedded import EmbeddedRedis, find_redis_server
from src.storage.event_log import RedisEventLog
from src.storage.fault_store import RedisFaultStore
from src.storage.limiter_store import redis_rate_limiter
from src.storage.metric_store import RedisMetricStore
from src.storage.pace_store import FailoverPaceStore, RedisPaceStore
from src.storage.proxy_totals import RedisProxyTotals
from src.storage.pulse_store import RedisPulseStore
from src.storage.recent_entries import RecentEntries
from src.storage.series_store import RedisSeriesStore
from src.storage.server_memory import used_memory_bytes
from src.storage.stress_lease import RedisStressLease
from src.telemetry import tracing
from src.telemetry.event_log import log_event
from src.telemetry.instruments import (
    Measured,
    count_event,
    limiter_observer,
    observe_request,
    observe_round_trip,
    observe_write,
    read_breaker,
    read_proxy,
)
from src.telemetry.logs import configure_logging, request_log
from src.telemetry.prometheus import exposition

EXTERNAL_SERVICE = "external-service"
SUMMARY_CACHE = "summary"
PROXY = "proxy"
DATA_FOLDER = Path("data")
RECENT_SUMMARIES_BYTES = 8 * 2**20
"""What each worker keeps of the summaries it served, for while Redis is away: some ten thousand."""

_KEEPALIVE_SECONDS = 3.0
"""How long an idle connection is used again: shorter than servers keep one, or the two would meet."""

P = ParamSpec("P")

_log = logging.getLogger(__name__)

DESCRIPTION = """
A self-hosted metrics service. Post measurements, ask for summaries; what the service depends on may fail
without taking it down, and everyone can watch how.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the API.

    Args:
        settings: What to go by; None reads the environment and `.env`.

    Raises:
        SystemExit: A setting has a value it cannot have; the message is one line that names it.
    """
    try:
        settings = settings or load_settings()
    except InvalidSettingsError as error:
        raise SystemExit(str(error)) from None
    configure_logging(settings.log_level, settings.log_format)
    clock = SystemClock()
    pulse = Pulse(cache=SUMMARY_CACHE, untimed_routes=frozenset({"/api/events", "/logs"}))
    is_traced = tracing.is_asked_for(os.environ)
    app = FastAPIOffline(
        title="Resilient Analytics API",
        version="0.1.0",
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        lifespan=partial(_lifespan, settings, clock, pulse),
        redirect_slashes=False,  # it would send the client to whatever Host it named
        telemetry=tracing.telemetry(on=is_traced),
    )
    log_request = request_log(settings.log_level, settings.log_format, clock)
    context = RequestContext(clock, (observe_request, pulse.observe_request, log_request))
    app.add_middleware(RequestContextMiddleware, context=context)
    errors.install(app)
    for module in (
        metrics, series, overview, health, circuit_breaker, admin, lab, events, proxy, telemetry, dashboard,
    ):  # fmt: skip
        app.include_router(module.router)
    app.include_router(lab.runs)
    openapi.install(app)
    if not is_traced:  # it is FastAPI's routing that tells a span its route
        app.middleware_stack = FastLaneMiddleware(app.build_middleware_stack(), context, metrics.LANES)
    return app


@asynccontextmanager
async def _lifespan(settings: Settings, clock: Clock, pulse: Pulse, _app: FastAPI) -> AsyncIterator[State]:
    async with AsyncExitStack() as stack:
        link = await _redis_link(settings, clock, pulse, stack)
        event_log = RedisEventLog(link)
        listener = _listener(event_log, clock, pulse, stack)
        breaker = _breaker(settings, link, clock, listener)
        pipeline = _pipeline(settings, breaker, clock, listener)
        provider = None if settings.external_service_url else _provider_in_process(settings, clock)
        client = await stack.enter_async_context(_external_client(settings, provider))
        shared_faults = RedisFaultStore(link) if settings.external_service_url is None else None
        measured = Pipeline(Measured(EXTERNAL_SERVICE, clock, is_failure), pipeline)
        external_service = ExternalService(client, measured, shared_faults)
        lab = Lab(
            external_service.attempt,
            pipeline,
            RedisStressLease(link),
            clock,
            # In the bulkhead's line, the API's own calls find at most as many of a run's as are being served.
            at_once=2 * settings.external_service_max_concurrency,
            name=EXTERNAL_SERVICE,
            listener=listener,
        )
        event_feed = EventFeed(event_log, clock)
        stack.enter_context(_on_exit_signal(event_feed.end))
        cache = _summary_cache(settings, link, clock, listener)
        stack.push_async_callback(cache.aclose)
        store = RedisMetricStore(link, clock, settings.metric_retention_seconds)
        summaries = SummaryService(store, cache, external_service, clock)
        forget = summaries.forget if settings.cache_invalidate_on_write else None
        key = settings.admin_api_key
        admission = partial(_admission, settings, link, clock, listener, pulse=pulse)
        running_proxy = await stack.enter_async_context(
            _running_proxy(settings, link, provider, clock, listener)
        )
        overviews = OverviewService[ProxyStatusOut](
            _pulse_store(link, clock, pulse, stack),
            breaker,
            partial(used_memory_bytes, link),
            external_service.faults,
            clock,
            proxy=partial(proxy.proxy_status, running_proxy),
        )
        stack.push_async_callback(overviews.aclose)
        yield State(
            clock=clock,
            metrics=MetricService(store, forget, _each(observe_write, pulse.observe_write)),
            series=SeriesService(RedisSeriesStore(link), clock),
            overview=overviews,
            summaries=summaries,
            external_service=external_service,
            breaker=breaker,
            lab=lab,
            proxy=running_proxy,
            event_feed=event_feed,
            ingest_admission=admission("ingest", limit=settings.rate_limit_requests),
            read_admission=admission("read", limit=settings.rate_limit_read_requests),
            client_address=ClientAddress(settings.trusted_proxies),
            admin_access=AdminAccess(key.get_secret_value() if key else None),
            body_limits=BodyLimits(settings.max_body_bytes, settings.batch_max_points),
            cache_ttl_seconds=settings.cache_ttl_seconds,
            redis_answers=link.ping,
            exposition=partial(
                exposition, partial(read_breaker, breaker), partial(read_proxy, running_proxy)
            ),
        )


async def _redis_link(settings: Settings, clock: Clock, pulse: Pulse, stack: AsyncExitStack) -> RedisLink:
    revive: Callable[[], Awaitable[None]] | None = None
    if settings.redis_address != "embedded://":
        client = connect(RedisAddress(settings.redis_address))
    elif find_redis_server() is not None:
        embedded = EmbeddedRedis(DATA_FOLDER)
        client = connect(RedisAddress(await embedded.start()))
        stack.push_async_callback(embedded.stop)
        revive = embedded.ensure_running
    else:
        _refuse_several_workers()
        client = connect_in_process()
        _log.warning("redis_in_process", extra={"detail": "no redis-server found: data is not kept"})
    link = RedisLink(client, clock, revive, _each(observe_round_trip, pulse.observe_round_trip))
    stack.push_async_callback(link.aclose)
    await link.warn_of_eviction()
    return link


def _refuse_several_workers() -> None:
    if multiprocessing.parent_process() is not None:  # a server's only worker is no child of another
        raise SystemExit("Without a redis-server only one worker may run: set WEB_CONCURRENCY=1")


@contextmanager
def _on_exit_signal(act: Callable[[], object]) -> Iterator[None]:
    """Have `act` done as soon as the process is told to stop.

    The server tells us only when every answer has ended, and some do not end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signals here
        return

    def handle(number: int, frame: FrameType | None) -> None:
        act()
        handlers[number](number, frame)

    found = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _listener(event_log: RedisEventLog, clock: Clock, pulse: Pulse, stack: AsyncExitStack) -> Listener:
    recorder = EventRecorder(event_log, clock, os.getpid(), count_event)
    recorder.start()
    stack.push_async_callback(recorder.aclose)
    return Listeners([count_event, pulse, log_event, recorder])


def _each(*observers: Callable[P, object]) -> Callable[P, None]:
    def observe(*args: P.args, **kwargs: P.kwargs) -> None:
        for tell in observers:
            tell(*args, **kwargs)

    return observe


def _pulse_store(link: RedisLink, clock: Clock, pulse: Pulse, stack: AsyncExitStack) -> PulseStore:
    fleet = RedisPulseStore(link, uuid.uuid4().hex)
    store = FailoverPulseStore(fleet, MemoryPulseStore(clock), clock)
    reporter = PulseReporter(pulse, store, clock)
    reporter.start()
    stack.push_async_callback(reporter.aclose)
    return store


def _admission(
    settings: Settings,
    link: RedisLink,
    clock: Clock,
    listener: Listener,
    name: str,
    *,
    limit: int,
    pulse: Pulse,
) -> Admission:
    quota = Quota(limit, settings.rate_limit_window_seconds)
    limiter = redis_rate_limiter(settings.rate_limit_algorithm, quota, link, clock)
    observe = _each(limiter_observer(name, settings.rate_limit_algorithm), pulse.observe_decision)
    return Admission(name, quota, limiter, listener, observe)


def _breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    options = CircuitBreakerOptions(
        failure_threshold=settings.circuit_breaker_failure_threshold,
        open_seconds=settings.circuit_breaker_reset_timeout,
        probe_lease_seconds=_longest_call_seconds(settings),
    )
    store = _breaker_store(link, clock)
    return CircuitBreaker(EXTERNAL_SERVICE, store, options, clock, listener=listener, is_failure=is_failure)


def _breaker_store(link: RedisLink, clock: Clock) -> FailoverBreakerStore:
    return FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))


def _summary_cache(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> ReadThroughCache:
    options = CacheOptions(
        ttl_seconds=settings.cache_ttl_seconds,
        stale_seconds=settings.cache_stale_seconds,
        lease_seconds=_longest_call_seconds(settings),
    )
    return ReadThroughCache(
        RedisCacheStore(link, RecentEntries(clock, RECENT_SUMMARIES_BYTES)),
        options,
        clock,
        SystemRandomizer(),
        stale_on=(CircuitOpenError, ExternalServiceUnavailableError),
        name=SUMMARY_CACHE,
        listener=listener,
    )


def _longest_call_seconds(settings: Settings) -> float:
    """Return how long a call of the external service may take, all its attempts and waits included."""
    return settings.external_service_attempts * (settings.external_service_timeout + 5) + 5


def _provider_in_process(settings: Settings, clock: Clock) -> httpx.ASGITransport:
    provider = create_provider_app(
        Faults(failure_rate=settings.external_service_failure_rate),
        chance=SystemRandomizer().random,
        now=clock.monotonic,
        sleep=clock.sleep,
    )
    return httpx.ASGITransport(provider)


def _external_client(settings: Settings, provider: httpx.ASGITransport | None) -> httpx.AsyncClient:
    url, timeout = _external_service_url(settings), settings.external_service_timeout
    hooks = {"request": [tracing.send_trace_context]} if tracing.is_asked_for(os.environ) else {}
    return httpx.AsyncClient(base_url=url, timeout=timeout, transport=provider, event_hooks=hooks)


def _external_service_url(settings: Settings) -> str:
    return str(settings.external_service_url or "http://provider")


def _pipeline(settings: Settings, breaker: CircuitBreaker, clock: Clock, listener: Listener) -> Pipeline:
    """Return what stands around every call of the external service; the fallback is the summary cache's."""
    patience = settings.external_service_timeout
    permits = settings.external_service_max_concurrency
    attempt = f"{EXTERNAL_SERVICE}.attempt"
    spans = [tracing.Traced(attempt)] if tracing.is_asked_for(os.environ) else []
    rate = Quota(settings.external_service_rate_per_second, 1)
    retry = RetryOptions(
        settings.external_service_attempts,
        total_seconds=_longest_call_seconds(settings),
        retry_on=is_worth_retrying,
    )
    return Pipeline(
        RateLimit(
            memory_rate_limiter("token_bucket", rate, clock),
            RateLimitOptions(key=EXTERNAL_SERVICE, max_wait_seconds=patience),
            clock,
            name=f"{EXTERNAL_SERVICE}.rate-limiter",
            listener=listener,
        ),
        Bulkhead(
            BulkheadOptions(permits, max_waiting=10 * permits, max_wait_seconds=patience),
            clock,
            name=f"{EXTERNAL_SERVICE}.bulkhead",
            listener=listener,
        ),
        breaker,
        Retry(retry, clock, SystemRandomizer(), name=EXTERNAL_SERVICE, listener=listener),
        Measured(attempt, clock, is_failure),
        *spans,
        Timeout(patience, clock, name=EXTERNAL_SERVICE, listener=listener),
    )


@asynccontextmanager
async def _running_proxy(
    settings: Settings,
    link: RedisLink,
    provider: httpx.ASGITransport | None,
    clock: Clock,
    listener: Listener,
) -> AsyncIterator[Proxy]:
    interval = settings.proxy_rate_limit_seconds
    queue, tally = _proxy_queue(settings, link, clock, listener), ProxyTally(RedisProxyTotals(link), clock)
    url = str(settings.proxy_upstream_url or _external_service_url(settings))
    async with _proxy_client(None if settings.proxy_upstream_url else provider) as client:
        upstream = Upstream(
            client,
            clock,
            queue.postpone,
            interval_seconds=interval,
            max_body_bytes=settings.proxy_max_body_bytes,
        )
        proxy = Proxy(
            target=UpstreamTarget(url),
            upstream=upstream,
            queue=queue,
            breaker=_proxy_breaker(settings, link, clock, listener),
            timeout=Timeout(settings.proxy_upstream_timeout, clock, name=PROXY, listener=listener),
            store=RedisCacheStore(link),
            cache_options=CacheOptions(
                ttl_seconds=settings.proxy_cache_ttl_seconds,
                stale_seconds=settings.cache_stale_seconds,
                lease_seconds=_longest_proxied_call_seconds(settings),
            ),
            tally=tally,
            clock=clock,
            interval_seconds=interval,
            patience_seconds=settings.proxy_request_timeout_seconds,
            listener=listener,
        )
        turn_away = partial(asyncio.get_running_loop().call_soon_threadsafe, queue.close)
        with _on_exit_signal(turn_away):
            async with aclosing(tally), aclosing(queue), aclosing(proxy):
                yield proxy


def _proxy_queue(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> PacedQueue:
    options = PacedQueueOptions(
        interval_seconds=settings.proxy_rate_limit_seconds * (1 + PACE_MARGIN),
        capacity=settings.queue_max_size,
        max_wait_seconds=settings.proxy_request_timeout_seconds,
    )
    fleet = RedisPaceStore(PROXY, options, link)
    store = FailoverPaceStore(fleet, options, clock, workers=settings.web_concurrency)
    # A call waits for as long as somebody waits for it, of whom each has had enough at another time.
    patient = replace(options, max_wait_seconds=MAX_SECONDS)
    return PacedQueue(patient, store, clock, name=PROXY, listener=listener)


def _proxy_breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    options = CircuitBreakerOptions(
        failure_threshold=settings.proxy_circuit_breaker_fail_max,
        open_seconds=settings.proxy_circuit_breaker_reset_timeout,
        probe_lease_seconds=_longest_proxied_call_seconds(settings),
    )
    store = _breaker_store(link, clock)
    return CircuitBreaker(PROXY, store, options, clock, listener=listener, is_failure=is_upstream_failure)


def _proxy_client(transport: httpx.ASGITransport | None) -> httpx.AsyncClient:
    """Return a client that remembers nothing between calls, since each is another caller's."""
    return httpx.AsyncClient(
        transport=transport,
        timeout=None,  # noqa: S113 -- the proxy's own stands around each call
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_SECONDS),
    )


def _longest_proxied_call_seconds(settings: Settings) -> float:
    return settings.proxy_upstream_timeout + 5
