"""The overview of the fleet over HTTP: its values, its findings, and the cost of many requests."""

import asyncio
import math
import re

import pytest

from src.services.overview.counter_store import CounterSnapshot
from src.storage.fleet.counters import RedisCounterStore
from tests.support.api import CALM, PLENTY, metric, running_api

QUICK = 0.02


@pytest.fixture(autouse=True)
def frequent_flushes(without_counter_flushes, monkeypatch):
    monkeypatch.setattr("src.services.overview.service.REUSE_SECONDS", 0)
    monkeypatch.setattr("src.services.overview.counters.FLUSH_SECONDS", QUICK)


async def overview(api) -> dict:
    answer = await api.get("/api/overview")
    assert answer.status_code == 200
    return answer.json()


async def until(api, holds) -> dict:
    """Read the overview until the condition is true."""
    async with asyncio.timeout(10):
        while not holds(seen := await overview(api)):
            await asyncio.sleep(QUICK)
    return seen


async def test_an_idle_fleet_has_a_complete_overview(api):
    seen = await until(api, lambda seen: seen["workers"] and seen["redis"]["latency_ms"] is not None)
    assert seen["status"] == {"level": "ok", "code": "ALL_WELL", "message": "All well"}
    assert seen["workers"] == 1
    assert seen["breaker"] == (await api.get("/api/circuit-breaker/status")).json()
    assert seen["proxy"] == (await api.get("/api/proxy/status")).json()
    assert seen["redis"]["connected"] is True
    assert seen["redis"]["latency_ms"] > 0
    assert seen["redis"]["round_trips_per_second"] > 0
    assert seen["redis"]["memory_bytes"] > 100_000
    assert seen["redis"]["rate_limits_without"] == "open"
    assert seen["cache"]["hit_ratio"] is None
    assert seen["external_service"] == {"failure_rate": 0.0, "lab_calls_per_second": 0.0}
    assert seen["generated_at"].endswith("Z")


async def test_the_overview_shows_requests_and_points(redis_server):
    quota = {"rate_limit_requests": 2, "rate_limit_read_requests": 100}
    async with running_api(redis_server.url, **quota, **CALM) as api:
        await api.post("/api/metrics/batch", json=[metric(n) for n in range(30)])
        for _ in range(2):
            await api.post("/api/metrics", json=metric())  # the second is refused
        for _ in range(4):
            await api.get("/api/metrics/summary?type=cpu")
        limiter = {"allowed_per_second": 0.6, "refused_per_second": 0.1, "bypassed_per_second": 0.0}
        cache = {
            "hits_per_second": 0.3, "misses_per_second": 0.1, "stale_per_second": 0.0, "hit_ratio": 0.75,
        }  # fmt: skip
        seen = await until(api, lambda seen: seen["limiter"] == limiter and seen["cache"] == cache)
        assert seen["traffic"]["points_per_second"] == 3.1
        assert seen["traffic"]["errors_per_second"] == 0
        times = seen["traffic"]["latency_ms"]
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
        await until(api, lambda seen: seen["traffic"]["requests_per_second"] >= 0.8)


async def test_a_stress_test_is_not_in_the_services_latency_and_its_calls_are_counted_apart(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        report = (await api.post("/stress?seconds=1&concurrency=5")).json()
        calls_per_second = report["count"] / 10
        seen = await until(
            api, lambda seen: seen["external_service"]["lab_calls_per_second"] == calls_per_second
        )
        assert seen["traffic"]["requests_per_second"] > 0
        assert (seen["traffic"]["latency_ms"]["p99"] or 0) < 900


async def test_all_workers_are_seen(api):
    link = api.state["is_redis_connected"].__self__
    await RedisCounterStore(link, "another").add(CounterSnapshot({"points": 500}))
    seen = await until(api, lambda seen: seen["traffic"]["points_per_second"])
    assert (seen["workers"], seen["traffic"]["points_per_second"]) == (2, 50.0)


async def test_an_opened_breaker_is_in_the_overview_at_once(api):
    await api.post("/api/admin/circuit-breaker/open")
    seen = await overview(api)
    assert (seen["status"]["level"], seen["status"]["code"]) == ("critical", "BREAKER_OPEN")
    assert re.match(r"Breaker forced open for \d s", seen["status"]["message"])
    assert seen["breaker"]["state"] == "OPEN"
    await api.post("/api/admin/circuit-breaker/close")
    assert (await overview(api))["status"]["code"] == "ALL_WELL"


async def test_the_overview_shows_a_changed_failure_rate(api):
    await api.put("/api/admin/external-service/failure-rate", json={"failure_rate": 0.7})
    await until(api, lambda seen: seen["external_service"]["failure_rate"] == 0.7)


async def test_concurrent_overviews_take_one_round_trip(redis_server, monkeypatch):
    monkeypatch.setattr("src.services.overview.counters.FLUSH_SECONDS", 3600)
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        link, overviews = api.state["is_redis_connected"].__self__, api.state["overview"]
        await until(api, lambda seen: seen["external_service"]["failure_rate"] is not None)
        monkeypatch.setattr(
            "src.services.overview.service.FAILURE_RATE_INTERVAL_SECONDS", 0
        )  # Redis decides this hit too
        monkeypatch.setattr("src.services.overview.service.REUSE_SECONDS", 3600)
        overviews._latest_monotonic = -math.inf
        before = link.round_trips
        answers = await asyncio.gather(*(api.get("/api/overview") for _ in range(50)))
        assert len({answer.content for answer in answers}) == 1
        assert link.round_trips - before == 1


async def test_an_open_event_stream_does_not_count_as_latency(api):
    async with asyncio.timeout(10):
        try:
            async with asyncio.timeout(0.3):
                await api.get("/api/events")
        except TimeoutError:
            pass
    seen = await until(api, lambda seen: seen["traffic"]["requests_per_second"] > 1)
    assert seen["traffic"]["latency_ms"]["p99"] < 290


async def test_without_redis_the_overview_is_that_of_one_worker(own_redis):
    async with running_api(own_redis.url, **PLENTY, **CALM) as api:
        await until(api, lambda seen: seen["redis"]["latency_ms"] is not None)
        own_redis.kill()
        seen = await until(api, lambda seen: not seen["redis"]["connected"])
        assert (seen["status"]["level"], seen["status"]["code"]) == ("critical", "REDIS_UNAVAILABLE")
        assert seen["status"]["message"].startswith("Redis unavailable for 0 s: nothing is stored")
        assert seen["workers"] == 1
        assert (seen["redis"]["memory_bytes"], seen["redis"]["latency_ms"]) == (None, None)
        assert (await api.post("/api/metrics", json=metric())).status_code == 503
        await until(api, lambda seen: seen["traffic"]["errors_per_second"] > 0)
        assert (await overview(api))["breaker"]["state"] == "CLOSED"
        own_redis.start()
        await until(
            api, lambda seen: seen["status"]["code"] != "REDIS_UNAVAILABLE" and seen["redis"]["connected"]
        )


async def test_the_status_reports_a_redis_that_rejects_writes(own_redis):
    async with running_api(own_redis.url, **PLENTY, **CALM) as api:
        with own_redis.connect() as client:
            client.execute_command("CONFIG", "SET", "maxmemory", "1")
            seen = await until(api, lambda seen: seen["status"]["code"] == "REDIS_REFUSES")
            assert seen["redis"]["connected"] is True
            client.execute_command("CONFIG", "SET", "maxmemory", "0")
        await until(api, lambda seen: seen["status"]["code"] != "REDIS_REFUSES")
