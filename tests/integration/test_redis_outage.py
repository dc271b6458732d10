"""A running API while Redis is killed, frozen, emptied and restarted."""

import asyncio
import json
from collections import Counter
from itertools import product

import pytest

from src.storage.redis.batcher import BUDGET_SECONDS
from src.storage.redis.link import CALL_TIMEOUT_SECONDS
from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api

FRESH = {"Cache-Control": "no-cache"}


@pytest.fixture
async def api(own_redis):
    async with running_api(own_redis.url, **PLENTY, **CALM) as client:
        yield client


MOST_WAITS = round((BUDGET_SECONDS + CALL_TIMEOUT_SECONDS) / 0.025) + 2
"""The longest wait of a request for a silent Redis: the limiter's budget and a call's timeout, 0.85 s.

The unit is the batcher's waits of 25 ms, so that other load of the machine does not affect the test.
"""


def waits(api):
    return api.state["is_redis_connected"].__self__._batcher._waits


async def until_healthy(api):
    async with asyncio.timeout(5):
        while (await api.get("/health")).status_code != 200:
            await asyncio.sleep(0.02)


async def assert_outage_is_reported(api):
    """Assert that routes that need Redis answer 503 within a second, and that other routes work."""
    began = waits(api)
    refused = await api.post("/api/metrics", json=metric())
    assert_problem(refused, 503, "REDIS_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) >= 1
    assert waits(api) - began <= MOST_WAITS
    for path in ("/api/metrics/summary?type=cpu", "/api/metrics/list", "/api/metrics/types"):
        assert_problem(await api.get(path), 503, "REDIS_UNAVAILABLE")
    for path in ("/health", "/health/ready"):
        answer = await api.get(path)
        assert answer.status_code == 503
        assert answer.json()["redis_connected"] is False
        assert answer.json()["status"] == "unhealthy"
    for path in ("/health/live", "/api/circuit-breaker/status", "/metrics", "/docs"):
        assert (await api.get(path)).status_code == 200


async def test_a_killed_and_restarted_redis_keeps_all_acknowledged_points(api, own_redis):
    assert (await api.post("/api/metrics", json=metric())).status_code == 201
    own_redis.kill()
    await assert_outage_is_reported(api)
    own_redis.start()
    await until_healthy(api)
    summary = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
    assert summary.json()["count"] == 1
    assert (await api.post("/api/metrics", json=metric())).status_code == 201


async def test_the_service_recovers_after_a_frozen_redis(api, own_redis):
    await api.post("/api/metrics", json=metric())
    own_redis.freeze()
    await assert_outage_is_reported(api)
    own_redis.thaw()
    await until_healthy(api)
    assert (await api.post("/api/metrics", json=metric())).status_code == 201


@pytest.mark.parametrize("how", ["freeze", "kill"])
async def test_cached_summaries_are_served_until_they_expire(api, own_redis, how):
    await api.post("/api/metrics", json=metric())
    for _ in range(2):
        hit = await api.get("/api/metrics/summary?type=cpu")
    getattr(own_redis, how)()
    answer = await api.get("/api/metrics/summary?type=cpu")
    assert (answer.status_code, answer.headers["x-cache"], answer.content) == (200, "HIT", hit.content)
    assert_problem(await api.get("/api/metrics/summary?type=cpu&period=daily"), 503, "REDIS_UNAVAILABLE")
    assert_problem(await api.get("/api/metrics/summary?type=cpu", headers=FRESH), 503, "REDIS_UNAVAILABLE")


async def test_while_redis_is_frozen_many_requests_are_answered_within_a_second(api, own_redis):
    await api.get("/api/metrics/summary?type=cpu")
    took = []

    async def call(number):
        began = waits(api)
        if number % 2:
            answer = await api.post("/api/metrics", json=metric())
        else:
            path = ("summary?type=cpu", "summary?type=new", "list", "types")[number // 2 % 4]
            answer = await api.get(f"/api/metrics/{path}")
        took.append(waits(api) - began)
        assert_problem(answer, 503, "REDIS_UNAVAILABLE")

    own_redis.freeze()
    async with asyncio.TaskGroup() as calls:
        for number in range(200):
            calls.create_task(call(number))
            await asyncio.sleep(0.001)
    assert max(took) <= MOST_WAITS


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    ],
    ids=["out of memory", "a replica"],
)
async def test_a_redis_that_rejects_writes_is_a_503(own_redis, refuse, accept):
    settings = {"external_service_attempts": 1, "circuit_breaker_failure_threshold": 1}
    async with running_api(own_redis.url, **settings, **CALM) as api:
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
        cached = await api.get("/api/metrics/summary?type=cpu")
        with own_redis.connect() as client:
            client.execute_command(*refuse)
            for _ in range(15):  # more than the quota
                assert_problem(await api.post("/api/metrics", json=metric()), 503, "REDIS_UNAVAILABLE")
            again = await api.get("/api/metrics/summary?type=cpu")
            assert (again.status_code, again.headers["x-cache"]) == (200, "HIT")
            assert again.content == cached.content
            # A server with a full memory rejects even transactions that only read.
            for period in ("all", "daily", "hourly"):
                fresh = await api.get(f"/api/metrics/summary?type=cpu&period={period}", headers=FRESH)
                assert (fresh.status_code, fresh.headers["x-cache"]) == (200, "MISS")
                assert fresh.json()["count"] == 1
            for path in ("list", "list?type=cpu", "types", "series?type=cpu&step=60"):
                read = await api.get(f"/api/metrics/{path}")
                assert (read.status_code, len(read.json()) > 0) == (200, True), path
            client.execute_command(*accept)
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
        summary = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
        assert summary.json()["count"] == 2


async def test_if_redis_rejects_reads_the_last_good_summary_is_served(own_redis):
    with own_redis.connect() as client:
        client.acl_setuser("api", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        url = own_redis.url.replace("unix://", "unix://api:any@")
        async with running_api(url, **PLENTY, **CALM) as api:
            await api.post("/api/metrics", json=metric())
            computed = await api.get("/api/metrics/summary?type=cpu")
            client.execute_command("ACL", "SETUSER", "api", "-hget")
            stale = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
            assert (stale.status_code, stale.headers["x-cache"]) == (200, "STALE")
            assert stale.json() == computed.json() | {"degraded": True}
            never = await api.get("/api/metrics/summary?type=other")
            assert_problem(never, 503, "REDIS_UNAVAILABLE")


KEY = {"Idempotency-Key": "order-66"}


@pytest.mark.parametrize(
    ("command", "headers"),
    [
        *product(["zadd", "hset", "hmget", "setrange", "getrange", "strlen"], [KEY, {}]),
        ("set", KEY),  # a write without a key does not need it
    ],
)
async def test_a_repeated_write_that_redis_rejected_is_not_reported_as_stored(own_redis, command, headers):
    """In the past, the answers were 503 and then 201 with `Idempotency-Replayed: true`, without a point."""
    with own_redis.connect() as client:
        client.acl_setuser("api", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        url = own_redis.url.replace("unix://", "unix://api:any@")
        body = metric()
        async with running_api(url, **PLENTY, **CALM) as api:
            client.execute_command("ACL", "SETUSER", "api", f"-{command}")
            statuses = [
                (await api.post("/api/metrics", json=body, headers=headers)).status_code for _ in range(2)
            ]
            client.execute_command("ACL", "SETUSER", "api", f"+{command}")
            assert statuses == [503, 503]
            again = await api.post("/api/metrics", json=body, headers=headers)
            assert again.status_code == 201
            assert "idempotency-replayed" not in again.headers
            assert len((await api.get("/api/metrics/list?type=cpu")).json()) == 1
            assert (await api.get("/api/metrics/summary?type=cpu", headers=FRESH)).json()["count"] == 1


@pytest.mark.parametrize("headers", [KEY, {}], ids=["keyed", "unkeyed"])
@pytest.mark.parametrize("path", ["/api/metrics", "/api/metrics/batch"])
async def test_a_write_without_a_reply_is_reported_as_possibly_stored(api, own_redis, headers, path):
    async def write():
        body = [metric()] if path.endswith("batch") else metric()
        answer = await api.post(path, json=body, headers=headers)
        assert_problem(answer, 503, "REDIS_UNAVAILABLE")
        return answer.json()["message"]

    async def read():
        answer = await api.get("/api/metrics/list?type=cpu")
        assert_problem(answer, 503, "REDIS_UNAVAILABLE")
        return answer.json()["message"]

    await api.get("/api/metrics/list")  # a connection is open
    own_redis.freeze()
    sent = await write()
    not_sent = await write()
    assert "may have been stored" in sent
    assert "same Idempotency-Key" in sent
    assert not_sent == await read()
    assert "stored" not in not_sent


async def test_a_write_that_redis_rejects_is_reported_as_not_stored(api, own_redis):
    with own_redis.connect() as client:
        client.config_set("maxmemory", 1)
    answer = await api.post("/api/metrics", json=metric(), headers=KEY)
    assert_problem(answer, 503, "REDIS_UNAVAILABLE")
    assert "stored" not in answer.json()["message"]


async def test_the_service_recovers_after_redis_lost_data_and_scripts(api, own_redis):
    await api.post("/api/metrics", json=metric())
    with own_redis.connect() as client:
        client.flushall()
        client.script_flush()
    assert (await api.post("/api/metrics", json=metric())).status_code == 201
    summary = await api.get("/api/metrics/summary?type=cpu", headers=FRESH)
    assert summary.json()["count"] == 1


async def test_the_limiter_fails_open_and_logs_it_once(own_redis, capsys):
    settings = {"rate_limit_requests": 2, "log_level": "WARNING"}
    async with running_api(own_redis.url, **settings, **CALM) as api:
        await api.post("/api/metrics", json=metric())
        own_redis.kill()
        for _ in range(5):
            assert (await api.post("/api/metrics", json=metric())).status_code == 503  # not 429
        events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
        assert events == ["redis_lost", "limiter_fails_open"]
        counted = (await api.get("/metrics")).text
        assert 'resilience_events_total{event="Bypassed",policy="ingest"}' in counted


async def answers_during_silence(api, own_redis):
    """Return the answers to batches and reads that arrive while Redis is silent for 0.4 s."""
    own_redis.freeze()
    calls = [api.post("/api/metrics/batch", json=[metric(n)]) for n in range(30)]
    calls += [api.get("/api/metrics/types") for _ in range(30)]
    answering = asyncio.gather(*calls)
    began = waits(api)
    async with asyncio.timeout(10):
        while waits(api) - began < 16 and not answering.done():
            await asyncio.sleep(0.005)
    own_redis.thaw()
    answers = await answering
    return answers[:30], answers[30:]


QUOTAS = {"rate_limit_requests": 4, "rate_limit_read_requests": 6, "web_concurrency": 2}


async def test_in_an_outage_the_policy_local_admits_a_workers_share_of_the_quotas(own_redis):
    """In the past, all requests were admitted in spite of a quota of ten."""
    async with running_api(own_redis.url, **QUOTAS, rate_limit_without_redis="local", **CALM) as api:
        batches, reads = await answers_during_silence(api, own_redis)
        for answers, share, policy in ((batches, 2, '"ingest";q=4;w=60'), (reads, 3, '"read";q=6;w=60')):
            refused = [answer for answer in answers if answer.status_code == 429]
            assert len(refused) == 30 - share
            assert {answer.headers["ratelimit-policy"] for answer in answers} == {policy}
            assert all(answer.headers["ratelimit"].split(";")[1] == "r=0" for answer in refused)
            assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
            assert all("x-ratelimit-remaining" in answer.headers for answer in answers)


async def test_in_an_outage_every_request_is_admitted_by_default(own_redis):
    async with running_api(own_redis.url, **QUOTAS, **CALM) as api:
        batches, reads = await answers_during_silence(api, own_redis)
        assert 429 not in {answer.status_code for answer in (*batches, *reads)}


async def test_in_an_outage_the_policy_closed_answers_503(own_redis):
    async with running_api(own_redis.url, **QUOTAS, rate_limit_without_redis="closed", **CALM) as api:
        await api.get("/api/metrics/summary?type=cpu")
        batches, reads = await answers_during_silence(api, own_redis)
        for answer in (*batches, *reads):
            assert_problem(answer, 503, "REDIS_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
        await until_healthy(api)
        other = {"X-Forwarded-For": "198.51.100.7"}  # Redis has run the commands sent before the silence
        assert (await api.post("/api/metrics", json=metric(), headers=other)).status_code == 201


@pytest.mark.parametrize(
    "refuse",
    [["CONFIG", "SET", "maxmemory", "1"], ["REPLICAOF", "127.0.0.1", "1"]],
    ids=["out of memory", "a replica"],
)
@pytest.mark.parametrize(("policy", "statuses"), [("local", {200: 3, 429: 7}), ("closed", {503: 10})])
async def test_while_redis_rejects_writes_the_outage_policy_applies(own_redis, refuse, policy, statuses):
    """In the past no policy applied."""
    async with running_api(own_redis.url, **QUOTAS, rate_limit_without_redis=policy, **CALM) as api:
        with own_redis.connect() as client:
            client.execute_command(*refuse)
        answers = [await api.get("/api/metrics/types") for _ in range(10)]
        assert Counter(answer.status_code for answer in answers) == statuses
        batches = [await api.post("/api/metrics/batch", json=[metric()]) for _ in range(10)]
        expected = {503: 2, 429: 8} if policy == "local" else {503: 10}
        assert Counter(answer.status_code for answer in batches) == expected


async def test_an_api_started_before_redis_recovers_by_itself(own_redis):
    own_redis.kill()
    async with running_api(own_redis.url, **PLENTY, **CALM) as api:
        assert (await api.get("/health")).status_code == 503
        own_redis.start()
        await until_healthy(api)
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
