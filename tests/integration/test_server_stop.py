"""The stop of the server: running requests are answered, and restarts under load lose no request."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time

import httpx
import pytest

from tests.support.api import metric
from tests.support.raw_http import RawConnection, exchange
from tests.support.server import Server, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals a program could catch here"),
]

PLENTY = {"RATE_LIMIT_REQUESTS": "1000000", "RATE_LIMIT_READ_REQUESTS": "1000000"}
RESTARTS = 3
GET = b"GET /api/metrics/types HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE, READY = (f"GET /health/{kind} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for kind in ("live", "ready"))


def post():
    body = json.dumps(metric()).encode()
    return b"POST /api/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Load:
    """Clients that send requests one after another to any of `ports` that answers, like a load balancer.

    A request counts as cut off if it was sent and got no complete answer. A refused connection does not count
    if there is another port. No client sends on a connection after an answer with `Connection: close`.
    """

    def __init__(self, *ports, kept=6, single=2):
        self.ports = list(ports)
        self.answers = {}
        self.cut_off = []
        self.refused = 0
        self._is_over = False
        self._turns = itertools.count()
        self._clients = [
            asyncio.create_task(self._client(keeps=number < kept)) for number in range(kept + single)
        ]

    @property
    def stored(self):
        return self.answers.get(201, 0)

    async def end(self):
        self._is_over = True
        await asyncio.gather(*self._clients)

    async def _client(self, *, keeps):
        connection = None
        while not self._is_over:
            if connection is None:
                connection = await self._connection()
            request = GET if next(self._turns) % 3 else post()
            try:
                await connection.send(request)
                answer = await connection.answer()
            except (OSError, EOFError) as error:
                self.cut_off.append((request[:20], error))
                connection = None
                continue
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            if answer.closes or not keeps:
                await connection.close()
                connection = None
            await asyncio.sleep(0.002)
        if connection is not None:
            await connection.close()

    async def _connection(self):
        async with asyncio.timeout(10):
            while True:
                for port in self.ports[next(self._turns) % 2 :] + self.ports:
                    with contextlib.suppress(ConnectionRefusedError):
                        return await RawConnection.open(port)
                    self.refused += 1
                await asyncio.sleep(0.01)


def start(redis_server, folder, **options):
    settings = PLENTY | {name: value for name, value in options.items() if name.isupper()}
    rest = {name: value for name, value in options.items() if not name.isupper()}
    return Server(redis_server.url, folder, command=("src",), **({"workers": 1} | rest), **settings)


async def until_ready(server):
    async with httpx.AsyncClient(base_url=server.url) as client:
        await server.until_healthy(client)


async def assert_no_request_was_cut_off(load, server):
    assert load.cut_off == []
    assert set(load.answers) == {200, 201}
    assert load.stored > 50
    async with httpx.AsyncClient(base_url=server.url) as client:
        (stored,) = (await client.get("/api/metrics/types")).json()
    assert stored["count"] == load.stored


async def test_rolling_restarts_by_sigterm_cut_off_no_request(redis_server, tmp_path):
    ports = [free_port(), free_port()]
    fleet = [start(redis_server, tmp_path, port=port) for port in ports]
    try:
        for server in fleet:
            await until_ready(server)
        load = Load(*ports)
        for number in range(RESTARTS):
            old = fleet[number % 2]
            await asyncio.sleep(0.5)
            old.process.terminate()
            assert await old.end() == 0
            fleet[number % 2] = start(redis_server, tmp_path, port=old.port)
            await until_ready(fleet[number % 2])
        await load.end()
        await assert_no_request_was_cut_off(load, fleet[0])
    finally:
        for server in fleet:
            server.stop()


async def test_rolling_restarts_by_sighup_cut_off_no_request_and_refuse_no_connection(redis_server, tmp_path):
    server = start(redis_server, tmp_path, workers=2)
    try:
        await server.until_logged("Application startup complete.", 2)
        await until_ready(server)
        load = Load(server.port)
        for number in range(1, RESTARTS + 1):
            server.process.send_signal(signal.SIGHUP)
            await server.until_logged("Application shutdown complete.", 2 * number)
        await load.end()
        await assert_no_request_was_cut_off(load, server)
        assert load.refused == 0
        assert len(server.lines("Application startup complete.")) == 2 * (RESTARTS + 1)
    finally:
        server.stop()


async def test_readiness_turns_before_connections_are_rejected(redis_server, tmp_path):
    server = start(redis_server, tmp_path, SHUTDOWN_DELAY_SECONDS="1.5")
    await until_ready(server)
    kept = await RawConnection.open(server.port)
    await kept.send(READY)
    assert (await kept.answer()).status == 200
    server.process.terminate()
    await asyncio.sleep(0.3)
    for path, status in ((READY, 503), (LIVE, 200), (GET, 200), (post(), 201)):
        answer = await exchange(server.port, path)
        assert (answer.status, answer.closes) == (status, True)
    await kept.send(READY)
    answer = await kept.answer()
    assert (answer.status, answer.closes) == (503, True)
    assert await kept.ends() == b""
    await kept.close()
    assert await server.end() == 0


async def test_running_requests_are_answered_at_the_stop(redis_server, tmp_path):
    server = start(redis_server, tmp_path)
    await until_ready(server)
    half_sent, half_head, idle, unused = [await RawConnection.open(server.port) for _ in range(4)]
    request = post()
    await half_sent.send(request[:-10])
    await half_head.send(request[:30])
    await idle.send(LIVE)
    await idle.answer()
    await asyncio.sleep(0.2)
    server.process.terminate()
    await server.until_logged("stopping")
    await half_sent.send(request[-10:])
    await half_head.send(request[30:])
    await idle.send(request)
    await unused.send(request)
    for connection in (half_sent, half_head, idle, unused):
        answer = await connection.answer()
        assert (answer.status, answer.closes) == (201, True)
        await connection.close()
    assert await server.end() == 0


async def test_connections_that_nobody_accepted_yet_are_served(redis_server, tmp_path):
    server = start(redis_server, tmp_path)
    await until_ready(server)
    os.kill(server.process.pid, signal.SIGSTOP)
    waiting = [await RawConnection.open(server.port) for _ in range(20)]
    for connection in waiting:
        await connection.send(LIVE)
    server.process.terminate()
    os.kill(server.process.pid, signal.SIGCONT)
    for connection in waiting:
        assert (await connection.answer()).status == 200
        await connection.close()
    assert await server.end() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_while_the_last_request_is_waited_for_new_connections_are_rejected(
    redis_server, tmp_path, workers
):
    server = start(redis_server, tmp_path, workers=workers)
    await server.until_logged("Application startup complete.", workers)
    await until_ready(server)
    request = post()
    last = await RawConnection.open(server.port)
    await last.send(request[:-10])
    await asyncio.sleep(0.2)
    server.process.terminate()
    await server.until_logged("stopping", workers)
    async with asyncio.timeout(5):
        while True:  # connections from before the listener was closed are answered
            try:
                assert (await exchange(server.port, LIVE)).status == 200
            except ConnectionRefusedError:
                break
    await last.send(request[-10:])
    assert (await last.answer()).status == 201
    await last.close()
    assert await server.end() == 0


async def test_a_request_that_takes_longer_than_the_stop_gets_a_503(redis_server, tmp_path):
    server = start(redis_server, tmp_path, SHUTDOWN_TIMEOUT_SECONDS="1.5")
    await until_ready(server)
    half_sent, idle = await RawConnection.open(server.port), await RawConnection.open(server.port)
    await half_sent.send(post()[:-10])
    await asyncio.sleep(0.2)
    began = time.monotonic()
    server.process.terminate()
    answer = await half_sent.answer()
    assert (answer.status, answer.closes) == (503, True)
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert json.loads(answer.body)["code"] == "STOPPING"
    assert await half_sent.ends() == await idle.ends() == b""
    assert await server.end() == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in server.log.read_text()
    for connection in (half_sent, idle):
        await connection.close()
