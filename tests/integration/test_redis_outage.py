"""Redis killed, frozen, emptied and brought back, under a running API."""

import asyncio
import json
import time

import pytest

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api

FRESH = {"Cache-Control": "no-cache"}


@pytest.fixture
async def api(own_redis):
    async with running_api(own_redis.url, **PLENTY, **CALM) as client:
        yield client


async def until_healthy(api):
    async with asyncio.timeout(5):
        while (await api.get("/health")).status_code != 200:
            await asyncio.sleep(0.02)


async def assert_honest(api):
    """What needs Redis says so within a second; what does not, goes on."""
    began = time.monotonic()
    refused = await api.post("/api/metrics", json=metric())
    assert_problem(refused, 503, "REDIS_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 1
    for path in ("/api/metrics/summary?type=cpu", "/api/metrics/list", "/api/metrics/types"):
        assert_problem(await api.get(path), 503, "REDIS_UNAVAILABLE")
    for path in ("/health", "/health/ready"):
        answer = await api.get(path)
        assert answer.status_code == 503
        assert answer.json()["redis_connected"] is False
        assert answer.json()["status"] == "unhealthy"
    for path in ("/health/live", "/api/circuit-breaker/status", "/metrics", "/docs"):
        assert (await api.get(path)).status_code == 200


async def test_killed_and_back_nothing_acknowledged_is_lost(api, own_redis):
    assert (await api.post("/api/metrics", json=metric())).status_code == 201
    own_redis.kill()
    await assert_honest(api)
    own_redis.start()
    await until_healthy(api)
    summary = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
    assert summary.json()["count"] == 1
    assert (await api.post("/api/metrics", json=metric())).status_code == 201


async def test_frozen_and_thawed(api, own_redis):
    await api.post("/api/metrics", json=metric())
    own_redis.freeze()
    await assert_honest(api)
    own_redis.thaw()
    await until_healthy(api)
    assert (await api.post("/api/metrics", json=metric())).status_code == 201


async def test_emptied_scripts_and_all(api, own_redis):
    await api.post("/api/metrics", json=metric())
    with own_redis.connect() as client:
        client.flushall()
        client.script_flush()
    assert (await api.post("/api/metrics", json=metric())).status_code == 201
    summary = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
    assert summary.json()["count"] == 1


async def test_the_limiter_fails_open_and_says_so_once(own_redis, capsys):
    settings = {"rate_limit_requests": 2, "log_level": "WARNING"}
    async with running_api(own_redis.url, **settings, **CALM) as api:
        await api.post("/api/metrics", json=metric())
        own_redis.kill()
        for _ in range(5):
            assert (await api.post("/api/metrics", json=metric())).status_code == 503  # not 429
        said = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
        assert said == ["redis_lost", "limiter_fails_open"]
        counted = (await api.get("/metrics")).text
        assert 'resilience_events_total{detail="",event="Bypassed",policy="ingest"}' in counted


async def test_an_api_started_before_redis_recovers_by_itself(own_redis):
    own_redis.kill()
    async with running_api(own_redis.url, **PLENTY, **CALM) as api:
        assert (await api.get("/health")).status_code == 503
        own_redis.start()
        await until_healthy(api)
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
