"""The app, its lifespan, and all parts except those of the external service, the proxy and the Redis link."""

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI

from src.api.access.admin_access import AdminAccess
from src.api.app import App
from src.api.dependencies import BodyLimits, State
from src.api.request_context import RequestContext
from src.api.routes import (
    admin,
    circuit_breaker,
    dashboard,
    events,
    health,
    index,
    lab,
    overview,
    proxy,
    telemetry,
)
from src.api.routes.metrics import export, ingest, lifecycle, page_reads, reads, series
from src.config.settings import Settings, load_settings_or_exit
from src.config.unknown_settings import unknown_settings
from src.observation.coalescing import CoalescingListener
from src.observation.request_record import RequestRecord
from src.observation.tick_batch import TickBatch
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.policy import ReadThroughCache
from src.resilience.cache.recent_entries import RecentEntries
from src.resilience.clock import Clock, SystemClock, SystemRandomizer
from src.resilience.errors import CircuitOpenError
from src.resilience.events import CallFinished, Listener, each, without
from src.resilience.http.client_address import ClientAddress
from src.resilience.pipeline import Pipeline
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota
from src.resilience.timeout import Timeout
from src.services.access.admission import Admission
from src.services.errors import StorageRefusedError
from src.services.events.feed import EventFeed
from src.services.events.recorder import EventRecorder
from src.services.external_service import NAME as EXTERNAL_SERVICE
from src.services.external_service import (
    ExternalService,
    ExternalServiceUnavailableError,
    is_failure,
)
from src.services.lab import ATTEMPT_SECONDS, Lab, LabPolicies
from src.services.metrics.ingest import MetricService
from src.services.metrics.series import SeriesService
from src.services.metrics.summary import SummaryService
from src.services.overview.counter_store import CounterStore, FailoverCounterStore, MemoryCounterStore
from src.services.overview.counters import CounterFlusher, WorkerCounters
from src.services.overview.service import OverviewService
from src.services.simulated_faults import FaultControl
from src.storage.fleet.counters import RedisCounterStore
from src.storage.fleet.event_log import RedisEventLog
from src.storage.fleet.faults import RedisFaultStore
from src.storage.fleet.leases import RedisStressLease
from src.storage.metrics.admitted_points import AdmittedPoints
from src.storage.metrics.readiness import RedisReadiness
from src.storage.metrics.store import Caps, RedisMetricStore
from src.storage.patterns.batched_cache_store import BatchedCacheStore
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter
from src.storage.redis.link import RedisLink
from src.storage.redis.server_memory import used_memory_bytes
from src.telemetry import tracing
from src.telemetry.event_log import log_event
from src.telemetry.instruments import (
    CallTimer,
    count_event,
    limiter_observer,
    observe_requests,
    observe_round_trip,
    observe_writes,
    update_breaker_gauge,
    update_proxy_gauges,
)
from src.telemetry.logs import configure_logging, request_log
from src.telemetry.prometheus import exposition, leave_folder
from src.wiring import external_service as external
from src.wiring.exit_signal import on_exit_signal
from src.wiring.lifecycle import running_lifecycle, summary_index
from src.wiring.proxy import running_proxy
from src.wiring.redis_link import redis_link

_log = logging.getLogger(__name__)

SUMMARY_CACHE = "summary"
UNTIMED_ROUTES = frozenset(
    (
        "/api/events", "/api/metrics/export", "/logs", "/invoke", "/invoke_delay", "/invoke_error", "/stress",
    )
)  # fmt: skip
"""Routes whose duration the client determines. The service's latency figures do not include them."""

LARGE_BODIES = 2
"""The large bodies of batches that a worker has in memory at a time: one arrives while another is decoded."""

PAGE_READS_FACTOR = 10
"""The quota of the operator's page, as a multiple of the read quota."""

RECENT_SUMMARIES_BYTES = 8 * 2**20
"""Memory of each worker for the summaries it has served, about 10,000, to serve them without Redis."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the API.

    Args:
        settings: The settings; None reads them from the environment and `.env`.

    Raises:
        SystemExit: A setting has an invalid value. The message is one line that names the setting.
    """
    used = settings or load_settings_or_exit()
    configure_logging(used.log_level, used.log_format)
    if settings is None:
        _warn_of_unknown_settings()
    clock = SystemClock()
    counters = WorkerCounters(cache=SUMMARY_CACHE, untimed_routes=UNTIMED_ROUTES)
    is_traced = tracing.is_enabled(os.environ)
    log_requests = request_log(used.log_level, used.log_format, clock)
    records = TickBatch[RequestRecord](each(observe_requests, counters.observe_requests, log_requests))
    app = App(
        RequestContext(clock, records.add, is_traced=is_traced),
        (*ingest.HOT_ROUTES, *reads.HOT_ROUTES, *series.HOT_ROUTES, *overview.HOT_ROUTES),
        lifespan=partial(_lifespan, used, clock, counters),
        telemetry=tracing.telemetry_config(on=is_traced),
    )
    for module in (
        ingest, reads, series, export, lifecycle, overview, health, circuit_breaker, admin, lab, events,
        proxy, telemetry, dashboard, page_reads, index,
    ):  # fmt: skip
        app.include_router(module.router)
    app.include_router(lab.runs)
    return app


def _warn_of_unknown_settings() -> None:
    for name, source, nearest in unknown_settings(os.environ):
        _log.warning("unknown_setting", extra={"setting": name, "source": source, "nearest": nearest})


@asynccontextmanager
async def _lifespan(
    settings: Settings, clock: Clock, counters: WorkerCounters, _app: FastAPI
) -> AsyncIterator[State]:
    async with AsyncExitStack() as stack:
        stack.callback(leave_folder)
        await stack.enter_async_context(tracing.run_exporters(os.environ, clock))
        stopping = asyncio.Event()
        stack.enter_context(on_exit_signal(stopping.set, clock))
        link = await redis_link(settings, clock, each(observe_round_trip, counters.observe_round_trip), stack)
        event_log = RedisEventLog(link)
        listener = _listener(event_log, clock, counters, stack)
        breaker = external.create_breaker(settings, link, clock, listener)
        policies = external.create_policies(settings, breaker, clock, listener)
        provider = None if settings.external_service_url else external.in_process_transport(settings, clock)
        client = await stack.enter_async_context(external.create_client(settings, provider))
        shared_faults = RedisFaultStore(link) if settings.external_service_url is None else None
        pipeline = Pipeline(CallTimer(EXTERNAL_SERVICE, clock, is_failure), policies.pipeline())
        fault_control = FaultControl(client, shared_faults)
        external_service = ExternalService(client, pipeline, clock, fault_control.apply_shared)
        lab = Lab(
            external_service.attempt,
            LabPolicies(
                policies.rate_limit,
                policies.bulkhead,
                policies.protection,
                Timeout(ATTEMPT_SECONDS, clock, name=EXTERNAL_SERVICE, listener=listener),
            ),
            RedisStressLease(link),
            clock,
            # As many calls run as the bulkhead has permits, and as many more wait in its queue.
            at_once=2 * settings.external_service_max_concurrency,
            name=EXTERNAL_SERVICE,
            listener=listener,
            count_call=counters.count_lab_call,
        )
        event_feed = EventFeed(event_log, clock)
        stack.enter_context(on_exit_signal(event_feed.end, clock, settings.shutdown_delay_seconds))
        cache = _summary_cache(settings, link, clock, listener)
        stack.push_async_callback(cache.aclose)
        caps = Caps(settings.max_types, settings.max_series_per_type)
        store = RedisMetricStore(link, clock, caps)
        stack.push_async_callback(store.aclose)
        index = summary_index(settings, link, clock)
        summaries = SummaryService(store, cache, external_service, index, clock)
        deletion = await stack.enter_async_context(
            running_lifecycle(settings, link, clock, store, summaries.discard)
        )
        forget = summaries.forget if settings.cache_invalidate_on_write else None
        key = settings.admin_api_key
        ingest_limiter = _limiter(settings, link, clock, limit=settings.rate_limit_requests)
        # With another policy, a request without Redis needs a decision, so it must wait for Redis.
        answers_early = settings.rate_limit_without_redis == "open"
        read_limiter = _limiter(
            settings, link, clock, limit=settings.rate_limit_read_requests, answers_early=answers_early
        )
        page_limit = min(  # a quota has at most one unit per microsecond
            PAGE_READS_FACTOR * settings.rate_limit_read_requests,
            settings.rate_limit_window_seconds * 1_000_000,
        )
        page_limiter = _limiter(settings, link, clock, limit=page_limit, answers_early=answers_early)
        admission = partial(_admission, listener, counters, settings=settings, clock=clock)
        internal_proxy = await stack.enter_async_context(
            running_proxy(settings, link, provider, clock, listener)
        )
        overviews = OverviewService(
            _counter_store(link, clock, counters, stack),
            breaker,
            partial(used_memory_bytes, link),
            fault_control.read,
            clock,
            proxy=internal_proxy.status,
            outage_policy=settings.rate_limit_without_redis,
        )
        stack.push_async_callback(overviews.aclose)
        yield State(
            clock=clock,
            metrics=MetricService(
                store,
                AdmittedPoints(ingest_limiter, store, link).admit_and_add,
                forget,
                TickBatch[int](each(observe_writes, counters.observe_writes)).add,
            ),
            series=SeriesService(store, clock),
            exports=store,
            lifecycle=deletion,
            overview=overviews,
            summaries=summaries,
            fault_control=fault_control,
            breaker=breaker,
            lab=lab,
            proxy=internal_proxy,
            event_feed=event_feed,
            ingest_admission=admission("ingest", ingest_limiter),
            read_admission=admission("read", read_limiter),
            page_admission=admission("page", page_limiter),
            client_address=ClientAddress(settings.trusted_proxies),
            admin_access=AdminAccess(key.get_secret_value() if key else None),
            body_limits=BodyLimits(
                settings.max_body_bytes,
                settings.batch_max_points,
                settings.metric_max_future_seconds * 1_000_000,
            ),
            large_bodies=asyncio.Semaphore(LARGE_BODIES),
            batch_lock=asyncio.Lock(),
            cache_ttl_seconds=settings.cache_ttl_seconds,
            invalidates_on_write=settings.cache_invalidate_on_write,
            is_redis_connected=link.ping,
            readiness=RedisReadiness(link, store, clock).check,
            is_stopping=stopping.is_set,
            exposition=partial(
                exposition,
                partial(update_breaker_gauge, breaker),
                partial(update_proxy_gauges, internal_proxy),
            ),
        )


def _listener(
    event_log: RedisEventLog, clock: Clock, counters: WorkerCounters, stack: AsyncExitStack
) -> Listener:
    recorder = EventRecorder(event_log, clock, os.getpid(), count_event)
    recorder.start()
    stack.push_async_callback(recorder.aclose)
    # The duration and outcome of each call are measured once for a pipeline: see `CallTimer`.
    return without(CoalescingListener(each(count_event, counters, log_event, recorder)), CallFinished)


def _counter_store(
    link: RedisLink, clock: Clock, counters: WorkerCounters, stack: AsyncExitStack
) -> CounterStore:
    fleet = RedisCounterStore(link, uuid.uuid4().hex)
    store = FailoverCounterStore(fleet, MemoryCounterStore(clock), clock)
    flusher = CounterFlusher(counters, store, clock)
    flusher.start()
    stack.push_async_callback(flusher.aclose)
    return store


def _limiter(
    settings: Settings, link: RedisLink, clock: Clock, *, limit: int, answers_early: bool = False
) -> BatchedRateLimiter:
    quota = Quota(limit, settings.rate_limit_window_seconds)
    return BatchedRateLimiter(settings.rate_limit_algorithm, quota, link, clock, answers_early=answers_early)


def _admission(
    listener: Listener,
    counters: WorkerCounters,
    name: str,
    limiter: BatchedRateLimiter,
    *,
    settings: Settings,
    clock: Clock,
) -> Admission:
    outage_policy, local = settings.rate_limit_without_redis, None
    (quota,) = limiter.quotas
    if outage_policy == "local":
        share = quota.share(settings.web_concurrency)
        local = memory_rate_limiter(limiter.algorithm, share, clock)
    return Admission(
        name,
        quota,
        limiter,
        listener,
        each(limiter_observer(name, limiter.algorithm), counters.observe_decisions),
        outage_policy=outage_policy,
        local=local,
    )


def _summary_cache(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> ReadThroughCache:
    options = CacheOptions(
        ttl_seconds=settings.cache_ttl_seconds,
        stale_seconds=settings.cache_stale_seconds,
        computation_seconds=external.longest_call_with_waits_seconds(settings),
    )
    return ReadThroughCache(
        BatchedCacheStore(
            link,
            RecentEntries(clock, RECENT_SUMMARIES_BYTES),
            answers_early=not settings.cache_invalidate_on_write,
        ),
        options,
        clock,
        SystemRandomizer(),
        stale_on=(CircuitOpenError, ExternalServiceUnavailableError, StorageRefusedError),
        name=SUMMARY_CACHE,
        listener=listener,
    )
