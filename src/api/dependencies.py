"""The services that the routes use, with their types, from the lifespan state."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypedDict

from starlette.requests import Request
from starlette.types import Scope

from src.api.access.admin_access import AdminAccess
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.clock import Clock
from src.resilience.http.client_address import ClientAddress
from src.services.access.admission import Admission
from src.services.events.feed import EventFeed
from src.services.lab import Lab
from src.services.metrics.export import ExportStore
from src.services.metrics.ingest import MetricService
from src.services.metrics.lifecycle import LifecycleService
from src.services.metrics.readiness import Readiness
from src.services.metrics.series import SeriesService
from src.services.metrics.summary import SummaryService
from src.services.overview.service import OverviewService
from src.services.proxy.service import Proxy
from src.services.simulated_faults import FaultControl


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The limits of a request that writes.

    Attributes:
        max_bytes: The largest body in bytes, after inflation.
        max_points: The largest number of points in a batch.
        max_future_us: How far a timestamp may be ahead of the server's clock, in µs.
    """

    max_bytes: int
    max_points: int
    max_future_us: int


class State(TypedDict):
    """The lifespan state. `src.wiring` creates it once per worker, and all requests share it."""

    clock: Clock
    metrics: MetricService
    series: SeriesService
    exports: ExportStore
    lifecycle: LifecycleService
    summaries: SummaryService
    fault_control: FaultControl
    breaker: CircuitBreaker
    lab: Lab
    proxy: Proxy
    event_feed: EventFeed
    overview: OverviewService
    ingest_admission: Admission
    read_admission: Admission
    page_admission: Admission  # for the operator's page
    client_address: ClientAddress
    admin_access: AdminAccess
    body_limits: BodyLimits
    large_bodies: asyncio.Semaphore  # the large bodies of batches that may be in memory
    batch_lock: asyncio.Lock  # one batch is decoded at a time, while Redis stores the previous one
    cache_ttl_seconds: int
    invalidates_on_write: bool  # whether a write drops the cached summaries of its types
    is_redis_connected: Callable[[], Awaitable[bool]]
    readiness: Callable[[], Awaitable[Readiness]]
    is_stopping: Callable[[], bool]
    exposition: Callable[[], Awaitable[tuple[bytes, str]]]  # the instruments, and their Content-Type


def state(request: Request) -> State:
    """Return the lifespan state of `request`."""
    return scope_state(request.scope)


def scope_state(scope: Scope) -> State:
    """Return the lifespan state of the request with `scope`."""
    services: State = scope["state"]
    return services
