"""GET /metrics of a running service, with the instruments of all workers."""

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from src.resilience.clock import SystemClock
from src.storage.redis.batcher import Batcher
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.server import each_its_own_connection

KEPT = {"method": "POST", "route": "/api/metrics"}


async def figures(client):
    """Return all series with their values, from the text format."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value_of(found, name, /, **labels):
    return found.get((name, frozenset(labels.items())), 0)


def increase(before, after, name, /, **labels):
    return value_of(after, name, **labels) - value_of(before, name, **labels)


def decisions(before, after, quota):
    labels = {"quota": quota, "algorithm": "sliding_window_log"}
    return [
        increase(before, after, "rate_limiter_decisions_total", outcome=outcome, **labels)
        for outcome in ("allowed", "refused", "bypassed")
    ]


def breaker_states(found):
    return {
        dict(labels)["state"]: value
        for (name, labels), value in found.items()
        if name == "circuit_breaker_state" and ("breaker", "external-service") in labels
    }


async def test_requests_and_writes_are_counted(redis_server):
    async with running_api(redis_server.url, rate_limit_requests=3, **CALM) as api:
        before = await figures(api)
        for _ in range(2):
            await api.post("/api/metrics", json=metric())
        await api.post("/api/metrics/batch", json=[metric() for _ in range(7)])
        await api.post("/api/metrics", json=metric())
        await api.get("/api/metrics/summary?type=cpu")
        await api.get("/api/metrics/summary?type=cpu")
        after = await figures(api)
    assert increase(before, after, "ingested_points_total") == 9
    assert increase(before, after, "ingest_batch_points_count") == 3
    assert increase(before, after, "ingest_batch_points_bucket", le="1.0") == 2
    assert decisions(before, after, "ingest") == [3, 1, 0]
    assert decisions(before, after, "read") == [2, 0, 0]
    assert increase(before, after, "cache_answers_total", cache="summary", outcome="miss") == 1
    assert increase(before, after, "cache_answers_total", cache="summary", outcome="hit") == 1
    for policy in ("external-service", "external-service.attempt"):
        name = "resilience_call_duration_seconds_count"
        assert increase(before, after, name, policy=policy, outcome="succeeded") == 1
    assert increase(before, after, "http_requests_total", status="201", **KEPT) == 2
    assert increase(before, after, "http_requests_total", status="429", **KEPT) == 1


async def test_a_repeated_write_is_not_counted_again(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        before = await figures(api)
        point = metric()
        for _ in range(2):
            await api.post("/api/metrics", json=point, headers={"Idempotency-Key": "once"})
        after = await figures(api)
    assert increase(before, after, "ingested_points_total") == 1


async def test_every_round_trip_is_counted(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        link = api.state["is_redis_connected"].__self__
        before, made_before = await figures(api), link.round_trips
        for _ in range(5):
            await api.post("/api/metrics", json=metric())
        made, after = (
            link.round_trips,
            await figures(api),
        )  # the last round trip is running while the answer is written
    observed = increase(before, after, "redis_round_trips_total")
    assert observed >= made - made_before >= 5
    assert increase(before, after, "redis_round_trip_duration_seconds_count") == observed
    assert increase(before, after, "redis_commands_total") >= observed
    assert 0 < increase(before, after, "redis_round_trip_duration_seconds_sum") < 60


async def test_no_label_has_a_value_that_a_client_chooses(redis_server):
    async with running_api(redis_server.url, peer="203.0.113.77", **PLENTY, **CALM) as api:
        await api.post("/api/metrics", json=metric(kind="telltale-type"))
        await api.get("/api/metrics/summary?type=telltale-type")
        await api.get("/telltale-path")
        await api.request("TELLTALE-METHOD", "/api/metrics")
        text = (await api.get("/metrics")).text
    for observed in ("telltale", "TELLTALE", "203.0.113"):
        assert observed not in text


async def test_the_gauge_has_the_current_state_of_the_breaker(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as api:
        before = await figures(api)
        assert breaker_states(before) == {"CLOSED": 1, "OPEN": 0, "HALF_OPEN": 0}
        async with running_api(redis_server.url, **PLENTY, **CALM) as another:
            await another.post("/api/admin/circuit-breaker/open")  # this client notifies only Redis
        after = await figures(api)
    assert breaker_states(after) == {"CLOSED": 0, "OPEN": 1, "HALF_OPEN": 0}
    changed = frozenset({("breaker", "external-service"), ("before", "CLOSED"), ("after", "OPEN")})
    series = ("circuit_breaker_transitions_total", changed)
    assert after[series] - before.get(series, 0) == 1


async def test_without_redis_the_overview_counts_bypassed_requests(own_redis):
    async with running_api(own_redis.url, **CALM) as api:
        before = await figures(api)
        own_redis.kill()
        await api.post("/api/metrics", json=metric())
        after = await figures(api)
    assert decisions(before, after, "ingest") == [0, 0, 1]
    assert breaker_states(after) == {"CLOSED": 1, "OPEN": 0, "HALF_OPEN": 0}


async def test_a_round_trip_that_fails_is_observed_too(own_redis):
    seen = []
    address = RedisAddress(own_redis.url)
    link = RedisLink(connect(address), SystemClock(), observe=lambda *observed: seen.append(observed))
    try:
        await asyncio.gather(link.send("PING"), link.send("ECHO", "a"))
        assert [commands for commands, _ in seen] == [2]
    finally:
        await link.aclose()
    own_redis.kill()
    lost = []
    client = connect(address)
    batcher = Batcher(client.connection_pool, 0.6, lost.append, lambda *observed: seen.append(observed))
    await asyncio.gather(batcher.add(("PING",)), return_exceptions=True)
    await batcher.aclose()
    await client.aclose()
    assert len(lost) == 1
    assert [commands for commands, _ in seen] == [2, 1]
    assert all(0 < seconds < 5 for _, seconds in seen)


@pytest.mark.slow
async def test_two_workers_return_the_same_totals(start_server):
    server = start_server(RATE_LIMIT_REQUESTS="1000", RATE_LIMIT_READ_REQUESTS="1000")
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await server.until_healthy(client)
        await each_its_own_connection(server, "POST", "/api/metrics", 60, json=metric())
        await client.post("/api/admin/circuit-breaker/open")

    async def asked():
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            return await figures(client)

    # the same from every worker
    for found in [await asked() for _ in range(10)]:
        assert value_of(found, "ingested_points_total") == 60
        assert value_of(found, "ingest_batch_points_count") == 60
        assert value_of(found, "ingest_batch_points_bucket", le="+Inf") == 60
        assert value_of(found, "http_requests_total", status="201", **KEPT) == 60
        assert value_of(found, "http_request_duration_seconds_count", **KEPT) == 60
        limiter = {"quota": "ingest", "algorithm": "sliding_window_log"}
        assert value_of(found, "rate_limiter_decisions_total", outcome="allowed", **limiter) == 60
        # the other worker reports its counters, and may have done so between the reading of its two files
        assert value_of(found, "redis_round_trips_total") > 0
        assert value_of(found, "redis_round_trip_duration_seconds_count") == pytest.approx(
            value_of(found, "redis_round_trips_total"), abs=1
        )
        assert breaker_states(found) == {"CLOSED": 0, "OPEN": 1, "HALF_OPEN": 0}

    # the gauge changes, although the worker that answered before has stored an older value
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await client.post("/api/admin/circuit-breaker/close")
    for found in [await asked() for _ in range(10)]:
        assert breaker_states(found) == {"CLOSED": 1, "OPEN": 0, "HALF_OPEN": 0}
        assert not any("pid" in dict(labels) for _, labels in found)
