"""Where the parts are joined: settings become options, options become parts, parts become an app."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import httpx
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from src.api import errors, openapi
from src.api.admin_access import AdminAccess
from src.api.client_address import ClientAddress
from src.api.dependencies import BodyLimits, State
from src.api.middleware.fast_lane import FastLaneMiddleware
from src.api.middleware.request_context import RequestContextMiddleware
from src.api.routes import admin, circuit_breaker, events, health, lab, metrics, telemetry
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
from src.services.summary import SummaryService
from src.storage.breaker_store import FailoverBreakerStore, RedisBreakerStore
from src.storage.cache_store import RedisCacheStore
from src.storage.client import RedisAddress, RedisLink, connect, connect_in_process
from src.storage.embedded import EmbeddedRedis, find_redis_server
from src.storage.event_log import RedisEventLog
from src.storage.failure_rate_store import RedisFailureRateStore
from src.storage.limiter_store import redis_rate_limiter
from src.storage.metric_store import RedisMetricStore
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
)
from src.telemetry.logs import configure_logging, request_log
from src.telemetry.prometheus import exposition

EXTERNAL_SERVICE = "external-service"
DATA_FOLDER = Path("data")

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
    is_traced = tracing.is_asked_for(os.environ)
    app = FastAPIOffline(
        title="Resilient Analytics API",
        version="0.1.0",
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        lifespan=partial(_lifespan, settings, clock),
        redirect_slashes=False,  # it would send the client to whatever Host it named
        telemetry=tracing.telemetry(on=is_traced),
    )
    if not is_traced:  # it is FastAPI's routing that tells a span its route
        app.add_middleware(FastLaneMiddleware, lanes=metrics.LANES)
    observers = (observe_request, request_log(settings.log_level, settings.log_format, clock))
    app.add_middleware(RequestContextMiddleware, clock=clock, observers=observers)
    errors.install(app)
    for module in (metrics, health, circuit_breaker, admin, lab, events, telemetry):
        app.include_router(module.router)
    app.include_router(lab.runs)
    openapi.install(app)
    return app


@asynccontextmanager
async def _lifespan(settings: Settings, clock: Clock, _app: FastAPI) -> AsyncIterator[State]:
    async with AsyncExitStack() as stack:
        link = await _redis_link(settings, clock, stack)
        event_log = RedisEventLog(link)
        listener = _listener(event_log, clock, stack)
        breaker = _breaker(settings, link, clock, listener)
        pipeline = _pipeline(settings, breaker, clock, listener)
        client = await stack.enter_async_context(_external_client(settings, clock))
        shared_rate = RedisFailureRateStore(link) if settings.external_service_url is None else None
        measured = Pipeline(Measured(EXTERNAL_SERVICE, clock, is_failure), pipeline)
        external_service = ExternalService(client, measured, shared_rate)
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
        admission = partial(_admission, settings, link, clock, listener)
        yield State(
            clock=clock,
            metrics=MetricService(store, forget, observe_write),
            summaries=summaries,
            external_service=external_service,
            breaker=breaker,
            lab=lab,
            event_feed=event_feed,
            ingest_admission=admission("ingest", limit=settings.rate_limit_requests),
            read_admission=admission("read", limit=settings.rate_limit_read_requests),
            client_address=ClientAddress(settings.trusted_proxies),
            admin_access=AdminAccess(key.get_secret_value() if key else None),
            body_limits=BodyLimits(settings.max_body_bytes, settings.batch_max_points),
            cache_ttl_seconds=settings.cache_ttl_seconds,
            redis_answers=link.ping,
            exposition=partial(exposition, partial(read_breaker, breaker)),
        )


async def _redis_link(settings: Settings, clock: Clock, stack: AsyncExitStack) -> RedisLink:
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
    link = RedisLink(client, clock, revive, observe_round_trip)
    stack.push_async_callback(link.aclose)
    await link.warn_of_eviction()
    return link


def _refuse_several_workers() -> None:
    if multiprocessing.parent_process() is not None:  # a server's only worker is no child of another
        raise SystemExit("Without a redis-server only one worker may run: set WEB_CONCURRENCY=1")


@contextmanager
def _on_exit_signal(act: Callable[[], None]) -> Iterator[None]:
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


def _listener(event_log: RedisEventLog, clock: Clock, stack: AsyncExitStack) -> Listener:
    recorder = EventRecorder(event_log, clock, os.getpid(), count_event)
    recorder.start()
    stack.push_async_callback(recorder.aclose)
    return Listeners([count_event, log_event, recorder])


def _admission(
    settings: Settings, link: RedisLink, clock: Clock, listener: Listener, name: str, *, limit: int
) -> Admission:
    quota = Quota(limit, settings.rate_limit_window_seconds)
    limiter = redis_rate_limiter(settings.rate_limit_algorithm, quota, link, clock)
    observe = limiter_observer(name, settings.rate_limit_algorithm)
    return Admission(name, quota, limiter, listener, observe)


def _breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    options = CircuitBreakerOptions(
        failure_threshold=settings.circuit_breaker_failure_threshold,
        open_seconds=settings.circuit_breaker_reset_timeout,
        probe_lease_seconds=_longest_call_seconds(settings),
    )
    store = FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))
    return CircuitBreaker(EXTERNAL_SERVICE, store, options, clock, listener=listener, is_failure=is_failure)


def _summary_cache(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> ReadThroughCache:
    options = CacheOptions(
        ttl_seconds=settings.cache_ttl_seconds,
        stale_seconds=settings.cache_stale_seconds,
        lease_seconds=_longest_call_seconds(settings),
    )
    return ReadThroughCache(
        RedisCacheStore(link),
        options,
        clock,
        SystemRandomizer(),
        stale_on=(CircuitOpenError, ExternalServiceUnavailableError),
        name="summary",
        listener=listener,
    )


def _longest_call_seconds(settings: Settings) -> float:
    """Return how long a call of the external service may take, all its attempts and waits included."""
    return settings.external_service_attempts * (settings.external_service_timeout + 5) + 5


def _external_client(settings: Settings, clock: Clock) -> httpx.AsyncClient:
    hooks = {"request": [tracing.send_trace_context]} if tracing.is_asked_for(os.environ) else {}
    if settings.external_service_url is not None:
        base_url, timeout = str(settings.external_service_url), settings.external_service_timeout
        return httpx.AsyncClient(base_url=base_url, timeout=timeout, event_hooks=hooks)
    provider = create_provider_app(
        Faults(failure_rate=settings.external_service_failure_rate),
        chance=SystemRandomizer().random,
        now=clock.monotonic,
        sleep=clock.sleep,
    )
    transport = httpx.ASGITransport(provider)
    return httpx.AsyncClient(transport=transport, base_url="http://provider", event_hooks=hooks)


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
