"""Readers of summaries while Redis restarts or freezes, or a worker dies."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.api import PLENTY, metric
from tests.support.provider import Provider, running_provider
from tests.support.redis_server import RedisServer
from tests.support.server import Server

pytestmark = pytest.mark.slow

TYPES = [f"type-{number}" for number in range(5)]
SETTINGS = {name.upper(): str(value) for name, value in PLENTY.items()} | {"CACHE_TTL_SECONDS": "1"}

LONG_SECONDS = 15.0
"""A longer wait means that the reader waits for a computation that has ended. On a busy machine, a second can
be several seconds; the original fault took 32 to 34 s on an idle machine."""


@dataclass
class Fleet:
    """Two separate workers with their Redis and provider. A test can kill a worker."""

    redis: RedisServer
    provider: Provider
    servers: list[Server]

    async def read(self, server: Server, metric_type: str) -> tuple[float, httpx.Response]:
        """Return the waiting time of a reader, and the answer."""
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            answer = await client.get(f"/api/metrics/summary?type={metric_type}")
        return time.monotonic() - began, answer

    async def read_all(self, *servers: Server, times: int = 3) -> list[tuple[float, httpx.Response]]:
        readers = (self.read(server, name) for server in servers for name in TYPES for _ in range(times))
        return await asyncio.gather(*readers)

    async def make_latency(self, milliseconds: int) -> None:
        async with httpx.AsyncClient() as client:
            await client.put(f"{self.provider.url}/faults", json={"latency_ms": milliseconds})

    async def until_computing(self) -> None:
        """Return when every type is being computed."""
        with self.redis.connect() as outside:
            async with asyncio.timeout(20):
                while len(outside.keys("{summary:*}:lease")) < len(TYPES):
                    await asyncio.sleep(0.005)

    async def kill_computing_worker(self) -> Server:
        """Kill the worker that computes all types, and return the other one."""
        doomed, other = self.servers
        lost = asyncio.create_task(self.read_all(doomed, times=1))
        await self.until_computing()
        os.kill(doomed.process.pid, signal.SIGKILL)
        await asyncio.gather(lost, return_exceptions=True)
        return other


@pytest.fixture
async def fleet(own_redis: RedisServer, tmp_path) -> AsyncIterator[Fleet]:
    """Return a fleet whose summaries have been computed once and have expired."""
    servers = []
    with running_provider() as provider:
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            settings = SETTINGS | {"EXTERNAL_SERVICE_URL": provider.url}
            servers.append(Server(own_redis.url, folder, workers=1, **settings))
        fleet = Fleet(own_redis, provider, servers)
        try:
            async with httpx.AsyncClient(base_url=servers[0].url, timeout=30) as client:
                await servers[0].until_healthy(client)
                for name in TYPES:
                    assert (await client.post("/api/metrics", json=metric(kind=name))).status_code == 201
            async with httpx.AsyncClient(base_url=servers[1].url, timeout=30) as client:
                await servers[1].until_healthy(client)
            await fleet.read_all(servers[0], times=1)
            await asyncio.sleep(1.1)
            yield fleet
        finally:
            own_redis.thaw()
            for server in servers:
                server.stop()


def assert_short_waits(read: list[tuple[float, httpx.Response]]) -> None:
    assert max(seconds for seconds, _ in read) < LONG_SECONDS
    assert {answer.status_code for _, answer in read} <= {200, 503}


async def test_redis_is_restarted_while_summaries_are_computed(fleet: Fleet):
    await fleet.make_latency(500)
    reading = asyncio.create_task(fleet.read_all(*fleet.servers))
    await fleet.until_computing()

    fleet.redis.kill()
    await asyncio.sleep(1)  # so that answers cannot be stored and leases cannot be released
    fleet.redis.start()
    read = await reading
    read += await fleet.read_all(*fleet.servers)

    assert_short_waits(read)
    await asyncio.sleep(0.5)  # by then the workers have a connection to Redis again
    after = await fleet.read_all(*fleet.servers, times=1)
    assert_short_waits(after)
    assert {answer.status_code for _, answer in after} == {200}


async def test_redis_is_frozen_while_summaries_are_computed(fleet: Fleet):
    await fleet.make_latency(300)
    reading = asyncio.create_task(fleet.read_all(*fleet.servers))
    await fleet.until_computing()

    fleet.redis.freeze()
    await asyncio.sleep(1.5)
    fleet.redis.thaw()
    read = await reading
    read += await fleet.read_all(*fleet.servers)

    assert_short_waits(read)
    await asyncio.sleep(0.5)
    after = await fleet.read_all(*fleet.servers, times=1)
    assert_short_waits(after)
    assert {answer.status_code for _, answer in after} == {200}


async def test_a_worker_is_killed_while_it_computes_and_the_last_good_answers_are_served(fleet: Fleet):
    await fleet.make_latency(2000)
    other = await fleet.kill_computing_worker()
    read = await fleet.read_all(other)

    assert_short_waits(read)
    assert {answer.status_code for _, answer in read} == {200}
    assert {answer.headers["x-cache"] for _, answer in read} <= {"STALE", "MISS"}
    for _, answer in read:
        assert answer.json()["degraded"] == (answer.headers["x-cache"] == "STALE")
        assert answer.json()["count"] == 1

    await fleet.make_latency(0)
    async with asyncio.timeout(30):  # they are computed again soon
        while {answer.headers["x-cache"] for _, answer in await fleet.read_all(other, times=1)} != {"HIT"}:
            await asyncio.sleep(0.05)


async def test_a_worker_is_killed_while_it_computes_what_was_never_computed_before(fleet: Fleet):
    with fleet.redis.connect() as outside:
        outside.delete(*outside.keys("*summary:*"))
    await fleet.make_latency(1000)
    other = await fleet.kill_computing_worker()
    read = await fleet.read_all(other)

    assert_short_waits(read)
    assert {(answer.status_code, answer.json()["degraded"]) for _, answer in read} == {(200, False)}
