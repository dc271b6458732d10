"""The overview of the fleet, for the operator's page."""

from functools import lru_cache

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.analytics.points import format_seconds
from src.api.dependencies import state
from src.api.hot_routes import HotRoute
from src.api.models.circuit_breaker import BreakerOut
from src.api.models.overview import (
    CacheOut,
    ExternalServiceOut,
    LatencyOut,
    LimiterOut,
    OverviewOut,
    RedisOut,
    StatusOut,
    TrafficOut,
)
from src.api.models.proxy import ProxyStatusOut
from src.services.overview.service import Overview

router = APIRouter(prefix="/api", tags=["telemetry"])


@router.get("/overview", summary="Overview of the fleet", response_model=OverviewOut)
async def overview(request: Request) -> Response:
    """Return the state of the whole service, over all workers.

    The rates cover the last ten whole seconds, so an event appears within a second. An overview is reused for
    half a second. While Redis is unavailable, the rates are those of the worker that answers.
    """
    return Response(_render(await state(request)["overview"].get()), media_type="application/json")


@lru_cache(maxsize=1)  # requests at about the same time get the same overview
def _render(fleet: Overview) -> bytes:
    return overview_out(fleet).model_dump_json().encode()


def overview_out(fleet: Overview) -> OverviewOut:
    """Return the answer for an overview."""
    counters, status = fleet.counters, fleet.status
    counts = counters.counts
    return OverviewOut(
        generated_at=format_seconds(fleet.read_at),
        status=StatusOut(level=status.level, code=status.code, message=status.message),
        workers=counters.workers,
        traffic=TrafficOut(
            requests_per_second=counters.per_second("requests"),
            points_per_second=counters.per_second("points"),
            errors_per_second=counters.per_second("errors"),
            latency_ms=LatencyOut(
                p50=counts.latency_ms(0.50), p95=counts.latency_ms(0.95), p99=counts.latency_ms(0.99)
            ),
        ),
        limiter=LimiterOut(
            allowed_per_second=counters.per_second("allowed"),
            refused_per_second=counters.per_second("refused"),
            bypassed_per_second=counters.per_second("bypassed"),
        ),
        cache=CacheOut(
            hits_per_second=counters.per_second("hits"),
            misses_per_second=counters.per_second("misses"),
            stale_per_second=counters.per_second("stale"),
            hit_ratio=_ratio(counts["hits"], counts["hits"] + counts["misses"] + counts["stale"]),
        ),
        breaker=BreakerOut.from_status(fleet.breaker),
        proxy=None if fleet.proxy is None else ProxyStatusOut.from_status(fleet.proxy),
        redis=_redis_out(fleet),
        external_service=ExternalServiceOut(
            failure_rate=fleet.failure_rate, lab_calls_per_second=counters.per_second("lab_calls")
        ),
    )


def _redis_out(fleet: Overview) -> RedisOut:
    counters = fleet.counters
    round_trips = counters.counts["round_trips"]
    latency_us = _ratio(counters.counts["round_trip_us"], round_trips)
    connected = counters.outage is None or counters.outage.kind == "refuses"
    return RedisOut(
        connected=connected,
        rate_limits_without=fleet.outage_policy,
        latency_ms=round(latency_us) / 1000 if connected and latency_us is not None else None,
        round_trips_per_second=counters.per_second("round_trips"),
        memory_bytes=fleet.memory_bytes,
    )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


HOT_ROUTES = (HotRoute("GET", "/api/overview", overview),)
