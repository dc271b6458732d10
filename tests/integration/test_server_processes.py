"""The server's checks and limits, for each way of starting the API."""

import asyncio
import contextlib
import itertools
import json

import httpx
import pytest

from tests.support.api import metric
from tests.support.raw_http import RawConnection, exchange
from tests.support.server import Server

pytestmark = pytest.mark.slow

KEY = "the-admin-key"
SETTINGS = {
    "ADMIN_API_KEY": KEY,
    "RATE_LIMIT_REQUESTS": "1",
    "MAX_HEAD_BYTES": "2048",
    "MAX_CONNECTIONS": "12",
    "HEAD_TIMEOUT_SECONDS": "1",
    "KEEP_ALIVE_SECONDS": "1",
}
WAYS = {
    "python -m src": (("src",), 1),
    "python -m src with two workers": (("src",), 2),
    "uvicorn": (("uvicorn", "src.main:app", "--no-proxy-headers"), 1),
    "uvicorn with two workers": (("uvicorn", "src.main:app", "--no-proxy-headers"), 2),
    "uvicorn with h11": (("uvicorn", "src.main:app", "--no-proxy-headers", "--http", "h11"), 1),
    "uvicorn with httptools on asyncio": (
        ("uvicorn", "src.main:app", "--http", "httptools", "--loop", "asyncio"), 1
    ),
}  # fmt: skip
CLIENTS = (f"X-Forwarded-For: 198.51.100.{number}" for number in itertools.count(1))
"""One server for each test, since a worker remembers clients over their quota."""

MALFORMED = b"GET /health/live HTTP/1.1\r\n\r\n"


@pytest.fixture(scope="module")
def servers(shared_redis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("servers")
    started = {}
    try:
        for way, (command, workers) in WAYS.items():
            started[way] = Server(shared_redis.url, folder, command=command, workers=workers, **SETTINGS)
        yield started
    finally:
        for server in started.values():
            server.stop()


@pytest.fixture(params=WAYS)
async def port(request, servers, redis_server):
    server = servers[request.param]
    await server.until_logged("Application startup complete.", WAYS[request.param][1])
    async with httpx.AsyncClient(base_url=server.url) as client:
        await server.until_healthy(client)
    return server.port


def lines(*texts):
    return "".join(f"{text}\r\n" for text in texts).encode()


def chunked(target, client, body, trailer):
    data = json.dumps(body)
    head = (target, "Host: x", client, "Content-Type: application/json", "Transfer-Encoding: chunked", "")
    return [lines(*head), lines(f"{len(data):x}", data, "0"), lines(trailer, "")]


async def until_answered(port):
    """Try until a new connection is served, which happens after the server has checked the silent ones."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError, EOFError):
                if (await exchange(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200:
                    return
            await asyncio.sleep(0.05)


def in_one_segment(pieces):
    return [b"".join(pieces)]


def in_pieces(pieces):
    return pieces


@pytest.mark.parametrize("cut", [in_one_segment, in_pieces])
async def test_a_trailer_is_neither_a_length_nor_a_key(port, cut):
    client, statuses = next(CLIENTS), []
    for number in range(3):
        trailer = f"X-Forwarded-For: 203.0.113.{number}"
        pieces = chunked("POST /api/metrics HTTP/1.1", client, metric(), trailer)
        statuses.append((await exchange(port, *cut(pieces))).status)
    assert statuses == [201, 429, 429]

    rate = "PUT /api/admin/external-service/failure-rate HTTP/1.1"
    pieces = chunked(rate, client, {"failure_rate": 0.5}, f"X-API-Key: {KEY}")
    assert (await exchange(port, *cut(pieces))).status == 401


async def test_a_request_without_a_host_is_rejected(port):
    refused = await exchange(port, MALFORMED)
    assert (refused.status, refused.closes) == (400, True)
    assert refused.headers["content-type"] == "application/problem+json"
    assert json.loads(refused.body)["code"] == "BAD_REQUEST"


async def test_a_body_that_is_rejected_is_never_read_as_a_request(port):
    connection = await RawConnection.open(port)
    head = ("POST /api/metrics/batch HTTP/1.1", "Host: x", next(CLIENTS), "Content-Length: 99999999")
    await connection.send(lines(*head, "Expect: 100-continue", ""))
    refused = await connection.answer()
    assert (refused.status, refused.closes) == (413, True)
    await connection.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await connection.ends() == b""
    await connection.close()


async def test_a_head_of_any_size_is_rejected(port):
    refused = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 3000 + b"\r\n\r\n")
    assert (refused.status, refused.closes) == (431, True)


async def test_incomplete_heads_and_silent_connections_time_out(port):
    half, silent, idle = [await RawConnection.open(port) for _ in range(3)]
    await half.send(MALFORMED[:-2])
    await idle.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await idle.answer()).status == 200
    assert (await half.answer()).status == 408
    assert [await connection.ends() for connection in (half, silent, idle)] == [b"", b"", b""]
    for connection in (half, silent, idle):
        await connection.close()


async def test_silent_connections_do_not_prevent_new_ones(port):
    silent = [await RawConnection.open(port) for _ in range(40)]
    await until_answered(port)
    for connection in silent:
        await connection.close()


async def test_with_few_descriptors_fewer_connections_are_held_and_all_clients_are_answered(
    redis_server, tmp_path
):
    few_descriptors = ("sh", "-c", 'ulimit -n 140; exec "$0" "$@"')
    server = Server(
        redis_server.url, tmp_path, command=("src",), workers=1, under=few_descriptors,
        MAX_CONNECTIONS="1000", HEAD_TIMEOUT_SECONDS="3",
    )  # fmt: skip
    silent = []
    try:
        async with httpx.AsyncClient(base_url=server.url) as client:
            await server.until_healthy(client)
        silent = [await RawConnection.open(server.port) for _ in range(300)]
        await until_answered(server.port)
        assert server.lines("open_files_limited")
        assert "Too many open files" not in server.log.read_text()
    finally:
        for connection in silent:
            await connection.close()
        server.stop()
