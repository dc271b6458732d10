"""What the routes are given: the services, typed, out of the lifespan state."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypedDict

from starlette.requests import Request
from starlette.types import Scope

from src.api.admin_access import AdminAccess
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.client_address import ClientAddress
from src.resilience.clock import Clock
from src.services.access.admission import Admission
from src.services.event_feed import EventFeed
from src.services.external_service import ExternalService
from src.services.lab import Lab
from src.services.metrics.export import ExportStore
from src.services.metrics.ingest import MetricService
from src.services.metrics.lifecycle import LifecycleService
from src.services.metrics.readiness import Readiness
from src.services.metrics.series import SeriesService
from src.services.metrics.summary import SummaryService
from src.services.overview.service import OverviewService
from src.services.proxy.service import Proxy


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How large a request may be.

    Attributes:
        max_bytes: Of a body, after inflation.
        max_points: In a batch.
        max_future_us: How far a timestamp may lie ahead of the server's clock, in µs.
    """

    max_bytes: int
    max_points: int
    max_future_us: int


class State(TypedDict):
    """The lifespan state: one of each, made in `src.wiring`, the same for every request of a worker."""

    clock: Clock
    metrics: MetricService
    series: SeriesService
    exports: ExportStore
    lifecycle: LifecycleService
    summaries: SummaryService
    external_service: ExternalService
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
    batch_turn: asyncio.Lock  # of whose batch is read: Redis stores one while the next is read
    cache_ttl_seconds: int
    invalidates_on_write: bool  # whether a write drops the cached summaries of its types
    redis_answers: Callable[[], Awaitable[bool]]
    readiness: Callable[[], Awaitable[Readiness]]
    is_stopping: Callable[[], bool]
    exposition: Callable[[], Awaitable[tuple[bytes, str]]]


def state(request: Request) -> State:
    """Return the lifespan state behind `request`."""
    return state_of(request.scope)


def state_of(scope: Scope) -> State:
    """Return the lifespan state behind the request of `scope`."""
    found: State = scope["state"]
    return found
