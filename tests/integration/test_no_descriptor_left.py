"""A process without a descriptor left answers every request, and serves again when it has some."""

import asyncio
import json
import resource
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support.api import metric
from tests.support.server import Server, free_port

KEPT = 40
"""Connections to the API, opened while there are descriptors."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets another process' limits"),
]


@pytest.fixture(params=["tcp", "unix"])
def server(request, start_redis, tmp_path):
    """Run one worker of the API, with its Redis."""
    port = str(free_port())
    redis = start_redis("--port", port)
    url = redis.url if request.param == "unix" else f"redis://localhost:{port}/0"
    plenty = {"RATE_LIMIT_REQUESTS": "1000000", "RATE_LIMIT_READ_REQUESTS": "1000000"}
    server = Server(url, tmp_path, workers=1, **plenty)
    yield server, redis
    server.stop()


def descriptors(server):
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


async def connect(server):
    host, port = server.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def status_of_request(connection, method, path, body=b""):
    """Return the status of the answer to a request over a connection that is open."""
    reader, writer = connection
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    await reader.readexactly(length)
    return status


async def test_without_a_descriptor_every_request_is_answered(server):
    server, redis = server
    async with httpx.AsyncClient(base_url=server.url) as client:
        await server.until_healthy(client)
    connections = [await connect(server) for _ in range(KEPT)]
    assert {await status_of_request(connection, "GET", "/health/live") for connection in connections} == {200}
    limit = descriptors(server)
    unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, unlimited[1]))
    with redis.connect() as outside:
        outside.client_kill_filter(_type="normal", skipme=True)
    takers = [await connect(server) for _ in range(KEPT)]  # these commands use the link's connections
    async with asyncio.timeout(5):
        while descriptors(server) < limit:
            await asyncio.sleep(0.02)

    async def one(number, connection):
        async with asyncio.timeout(10):
            if number % 2:
                return await status_of_request(connection, "GET", "/api/metrics/summary?type=cpu")
            return await status_of_request(connection, "POST", "/api/metrics", json.dumps(metric()).encode())

    for _ in range(2):
        statuses = Counter(await asyncio.gather(*(one(*pair) for pair in enumerate(connections))))
        assert statuses.keys() <= {200, 201, 503}
        assert statuses[503] > 0, "the link found a descriptor"
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, unlimited)
    async with asyncio.timeout(10):
        while await one(0, connections[0]) != 201:
            await asyncio.sleep(0.1)
    for _, writer in (*connections, *takers):
        writer.close()
