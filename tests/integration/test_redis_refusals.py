"""A command that Redis rejects is a 503, and health and readiness agree with the requests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.crc import key_slot

from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.redis_cluster import NODES, SLOTS
from tests.support.redis_server import RedisServer
from tests.support.server import free_port

FRESH = {"Cache-Control": "no-cache"}

StartRedis = Callable[..., RedisServer]


def run(server: RedisServer, *commands: str) -> str:
    with server.connect() as client:
        for command in commands:
            client.execute_command(*command.split())
    return server.url


def without(command):
    return lambda start: start("--rename-command", command, "").url


def as_user(rules):
    def url(start: StartRedis):
        server = start()
        run(server, f"ACL SETUSER limited on >secret ~* {rules}")
        return f"unix://limited@{server.socket}?password=secret"

    return url


def cluster_node(start: StartRedis):
    server = start("--cluster-enabled", "yes")
    with server.connect() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        while "cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            pass
    return server.url


def redis_without_snapshots(start: StartRedis):
    server = start()
    (server.folder / "dump.rdb").mkdir()
    with server.connect() as client:
        client.config_set("save", "3600 1")
        client.set("word", "x")
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            pass
    return server.url


def over_tcp(start: StartRedis):
    port = free_port()
    start("--port", str(port))
    return f"redis://127.0.0.1:{port}"


NOT_CONNECTED = (False, False, False)

SERVERS: dict[str, tuple[Callable[[StartRedis], str], tuple[bool, bool, bool]]] = {
    "no such database": (lambda start: f"{over_tcp(start)}/99", NOT_CONNECTED),
    "a password too many": (lambda start: f"{start().url}?password=hunter2", NOT_CONNECTED),
    "a server without TLS": (lambda start: over_tcp(start).replace("redis", "rediss"), NOT_CONNECTED),
    "a user without rights": (as_user("-@all"), (True, False, False)),
    "a user who may only read": (
        as_user("+@read +@transaction +@scripting +time +ping"),
        (True, False, True),
    ),
    "EVALSHA denied": (as_user("+@all -evalsha"), (True, False, False)),
    "EVAL denied": (as_user("+@all -eval"), (True, False, False)),
    "TIME denied": (as_user("+@all -time"), (True, False, True)),
    "MULTI and EXEC denied, which nothing uses": (as_user("+@all -multi -exec"), (True, True, True)),
    "EVALSHA renamed": (without("EVALSHA"), (True, False, False)),
    "EVAL renamed": (without("EVAL"), (True, False, False)),
    "TIME renamed": (without("TIME"), (True, False, True)),
    "a cluster of one node": (cluster_node, (True, True, True)),
    "a replica": (lambda start: run(start(), "REPLICAOF 127.0.0.1 1"), (True, False, True)),
    "no replicas": (lambda start: run(start(), "CONFIG SET min-replicas-to-write 1"), (True, False, True)),
    "a disk that cannot be saved to": (redis_without_snapshots, (True, False, True)),
}
"""Servers, with whether each is connected, stores and reads."""

PEERS = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "a server that is loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "a server in protected mode": b"-DENIED Redis is running in protected mode\r\n",
}
"""What answers every connection like this, and closes it."""


async def call_all_routes(api) -> None:
    """Call all routes that use Redis, writes with a key, and assert that no answer is an internal error."""
    requests = [
        ("POST", "/api/metrics", metric()),
        ("POST", "/api/metrics/batch", [metric(), metric(kind="disk")]),
        *(("GET", f"/api/metrics/{path}", None) for path in (
            "summary?type=cpu", "summary?type=cpu&period=daily", "list", "list?type=cpu", "types",
            "series?type=cpu&from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z&step=60",
        )),
        *(("GET", path, None) for path in (
            "/api/overview", "/api/circuit-breaker/status", "/api/proxy/status", "/proxy/get", "/logs",
            "/metrics", "/circuit_state", "/invoke?count=1", "/api/admin/external-service/failure-rate",
            "/health", "/health/ready", "/health/live",
        )),
        ("PUT", "/api/admin/external-service/failure-rate", {"failure_rate": 0.0}),
        ("PUT", "/api/admin/proxy/policy", {"policy": "fifo"}),
        ("PUT", "/api/admin/retention", {"pattern": "none", "seconds": 60}),
        ("GET", "/api/admin/retention", None),
        ("DELETE", "/api/admin/retention?pattern=none", None),
        ("DELETE", "/api/metrics?type=disk", None),
        ("POST", "/api/admin/circuit-breaker/open", None),
        ("POST", "/api/admin/circuit-breaker/close", None),
    ]  # fmt: skip
    for number, (method, path, body) in enumerate(requests):
        answer = await api.request(method, path, json=body, headers={"Idempotency-Key": str(number)})
        assert answer.status_code in {200, 201, 503}, (method, path, answer.text)
        if answer.status_code == 503 and "health" not in path:
            assert "retry-after" in answer.headers, path


async def assert_consistent(api, connected: bool, ingest: bool, reads: bool) -> None:
    """Assert that health and readiness agree with the results of requests."""
    writes = [
        await api.post("/api/metrics", json=metric()),
        await api.post("/api/metrics/batch", json=[metric()]),
    ]
    for answer in writes:
        assert answer.status_code == (201 if ingest else 503), answer.text
    summaries_and_lists = [
        await api.get("/api/metrics/summary?type=cpu", headers=FRESH),
        await api.get("/api/metrics/list?type=cpu"),
    ]
    assert reads is all(answer.status_code == 200 for answer in summaries_and_lists)
    for answer in (*writes, *summaries_and_lists):
        if answer.status_code not in {200, 201}:
            assert_problem(answer, 503, "REDIS_UNAVAILABLE")
    health, ready = await api.get("/health"), await api.get("/health/ready")
    assert health.status_code == (200 if ingest and reads else 503)
    assert health.json()["redis_connected"] is connected
    assert ready.status_code == (200 if ingest or reads else 503)
    readiness = ready.json()
    parts = (readiness["redis_connected"], readiness["ingest"], readiness["reads"])
    assert parts == (connected, ingest, reads)
    status = {2: "healthy", 1: "degraded", 0: "unhealthy"}[ingest + reads]
    assert readiness["status"] == status
    assert health.json()["status"] == ("healthy" if status == "healthy" else "unhealthy")


@asynccontextmanager
async def api_on(url: str) -> AsyncIterator[object]:
    async with running_api(url, external_service_attempts=1, **PLENTY, **CALM) as api:
        yield api


@pytest.mark.parametrize("name", SERVERS)
async def test_a_command_that_redis_rejects_is_reported_as_rejected(start_redis, name):
    prepare, expected = SERVERS[name]
    async with api_on(prepare(start_redis)) as api:
        await assert_consistent(api, *expected)
        await call_all_routes(api)


@pytest.mark.parametrize("node", range(NODES))
async def test_one_node_of_several_is_not_ready(shared_cluster, node):
    """In the past, a node that had all the tested keys was reported as ready."""
    shared_cluster.flush()
    async with api_on(f"redis://127.0.0.1:{shared_cluster.ports[node]}") as api:
        for path in ("/health", "/health/ready"):
            answer = await api.get(path)
            assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
            assert answer.json()["redis_connected"] is True
        slots = set()
        for kind in ("a", "b", "c"):
            slots.add(key_slot(f"m:{{{kind}}}:d".encode()) * NODES // SLOTS)
            for write in (("/api/metrics", metric(kind=kind)), ("/api/metrics/batch", [metric(kind=kind)])):
                answer = await api.post(write[0], json=write[1])
                assert answer.status_code in {201, 503}, answer.text
                if answer.status_code == 503:
                    assert_problem(answer, 503, "REDIS_UNAVAILABLE")
        assert slots == set(range(NODES))
        await call_all_routes(api)


@pytest.mark.parametrize("name", PEERS)
async def test_a_server_that_rejects_commands_is_unavailable(name):
    async def serve(reader, writer):
        await reader.read(1000)
        writer.write(PEERS[name])
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with api_on(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as api:
        await assert_consistent(api, *NOT_CONNECTED)
        await call_all_routes(api)
    listening.close()


async def test_a_script_with_keys_of_two_slots_is_rejected_by_a_node_of_a_cluster(start_redis):
    async with api_on(cluster_node(start_redis)) as api:
        keyed = await api.post("/api/metrics", json=metric(), headers={"Idempotency-Key": "k"})
        assert_problem(keyed, 503, "REDIS_UNAVAILABLE")


async def test_a_full_memory_rejects_only_writes(own_redis):
    async with api_on(own_redis.url) as api:
        await assert_consistent(api, True, True, True)
        run(own_redis, "CONFIG SET maxmemory 1")
        ready = await api.get("/health/ready")
        assert (await api.get("/api/metrics/summary?type=cpu", headers=FRESH)).status_code == 200
        assert ready.json() | {"timestamp": ""} == {
            "status": "degraded", "redis_connected": True, "ingest": False, "reads": True, "timestamp": "",
        }  # fmt: skip
        await call_all_routes(api)
        run(own_redis, "CONFIG SET maxmemory 0")
        await assert_consistent(api, True, True, True)


async def test_too_many_clients_are_an_outage_until_there_is_room(own_redis):
    async with AsyncExitStack() as stack:
        holder = stack.enter_context(own_redis.connect())
        holder.config_set("maxclients", 1)
        api = await stack.enter_async_context(api_on(own_redis.url))
        await assert_consistent(api, *NOT_CONNECTED)
        await call_all_routes(api)
        holder.config_set("maxclients", 100)
        async with asyncio.timeout(5):
            while (await api.get("/health")).status_code != 200:
                await asyncio.sleep(0.02)
        await assert_consistent(api, True, True, True)


async def test_readiness_checks_leave_no_key(own_redis):
    async with api_on(own_redis.url) as api:
        for _ in range(3):
            assert (await api.get("/health/ready")).json()["status"] == "healthy"
    with own_redis.connect() as client:
        others = ("breaker:", "events", "counters:", "proxy:totals", "m:layout")
        assert [key for key in client.scan_iter() if not key.startswith(others)] == []


async def test_a_foreign_value_in_place_of_the_registry_is_not_ready(own_redis):
    async with api_on(own_redis.url) as api:
        run(own_redis, "SET types foreign")
        readiness = (await api.get("/health/ready")).json()
        assert (readiness["redis_connected"], readiness["ingest"], readiness["reads"]) == (True, False, False)
        run(own_redis, "DEL types")
        await assert_consistent(api, True, True, True)
