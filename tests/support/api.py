"""The complete API in this process, with its lifespan, a real Redis and a provider."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx

from src.config.settings import Settings
from src.wiring import create_app
from tests.support.logging_state import restore_logging

PLENTY = {"rate_limit_requests": 1_000_000, "rate_limit_read_requests": 1_000_000}
"""Settings for tests that are about something else than the rate limit."""

CALM = {"external_service_failure_rate": 0.0}
"""Settings for tests that are about something else than failures."""


@asynccontextmanager
async def running_api(
    redis_url: str, *, peer: str = "127.0.0.1", **settings
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a complete API on `redis_url`, and yield a client with the address `peer`."""
    with restore_logging():
        async with _api(redis_url, peer, settings) as client:
            yield client


@asynccontextmanager
async def _api(redis_url: str, peer: str, settings: dict[str, object]) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(_env_file=None, redis_url=redis_url, **({"log_level": "CRITICAL"} | settings)))
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope, receive, send):
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state, client=(peer, 50000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            client.state = state
            yield client


def metric(value: float = 1.0, kind: str = "cpu", ago: float = 60.0) -> dict[str, object]:
    """Return a measurement with a timestamp `ago` seconds before now."""
    taken = datetime.now(UTC) - timedelta(seconds=ago)
    return {"timestamp": taken.isoformat(), "value": value, "type": kind}
