"""The fleet at a glance, for the operator's page."""

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


@router.get("/overview", summary="The fleet at a glance", response_model=OverviewOut)
async def overview(request: Request) -> Response:
    """Show what is true of the whole service, all workers together.

    Rates are over the last ten whole seconds, so what happens now shows a second later. A reading is kept for
    half a second. While Redis is away the rates are those of the worker that answers.
    """
    return Response(_rendered(await state(request)["overview"].get()), media_type="application/json")


@lru_cache(maxsize=1)  # a reading is the same for all who look at about the same time
def _rendered(found: Overview) -> bytes:
    return overview_out(found).model_dump_json().encode()


def overview_out(found: Overview) -> OverviewOut:
    """Return an overview as it is shown."""
    counters, said = found.counters, found.verdict
    counts = counters.counts
    return OverviewOut(
        generated_at=format_seconds(found.read_at),
        status=StatusOut(level=said.level, code=said.code, message=said.message),
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
        breaker=BreakerOut.of(found.breaker),
        proxy=None if found.proxy is None else ProxyStatusOut.of(found.proxy),
        redis=_redis_out(found),
        external_service=ExternalServiceOut(
            failure_rate=found.failure_rate, lab_calls_per_second=counters.per_second("lab_calls")
        ),
    )


def _redis_out(found: Overview) -> RedisOut:
    counters = found.counters
    round_trips = counters.counts["round_trips"]
    latency_us = _ratio(counters.counts["round_trip_us"], round_trips)
    connected = counters.outage is None or counters.outage.kind == "refuses"
    return RedisOut(
        connected=connected,
        rate_limits_without=found.without_store,
        latency_ms=round(latency_us) / 1000 if connected and latency_us is not None else None,
        round_trips_per_second=counters.per_second("round_trips"),
        memory_bytes=found.memory_bytes,
    )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


HOT_ROUTES = (HotRoute("GET", "/api/overview", overview),)
