"""Connections of a server in this process, with a clock that the test moves."""

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import uvicorn

from src.server.connections import Connections
from src.server.options import ServerOptions
from src.server.protocol import HttpConnection
from tests.support.raw_http import RawConnection

HEAD_SECONDS, IDLE_SECONDS = 10.0, 5.0


def options(**changes):
    defaults = {
        "max_connections": 100, "max_head_bytes": 64 * 1024, "head_timeout_seconds": HEAD_SECONDS,
        "keep_alive_seconds": IDLE_SECONDS, "shutdown_delay_seconds": 0.0, "shutdown_timeout_seconds": 10.0,
    }  # fmt: skip
    return ServerOptions(**(defaults | changes))


async def answer(send, status, document):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more = message["more_body"]
    return body


async def echo(scope, receive, send):
    """Answer with the received request."""
    body = await whole_body(receive)
    if body is not None:
        headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        response = {
            "method": scope["method"],
            "path": scope["path"],
            "headers": headers,
            "body": body.decode(),
        }
        await answer(send, 200, response)


async def until(condition):
    """Run the event loop until `condition` returns True."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def listening_socket(app, clock, protocol=HttpConnection, **changes):
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    connections = Connections(options(**changes), clock)
    accepted, opened = [], []

    def accept():
        accepted.append(protocol(config, connections, {}))
        return accepted[-1]

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def connect():
        known = len(accepted)
        opened.append(await RawConnection.open(port))
        await until(lambda: len(accepted) > known and accepted[-1].transport)
        return opened[-1]

    try:
        yield SimpleNamespace(port=port, connections=connections, connect=connect)
    finally:
        for connection in opened:
            await connection.close()
        server.close()
        for connection in connections.all():
            connection.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def serve(clock):
    """Serve an application on a free port, until the test ends."""
    running = []

    async def start(app=echo, **changes):
        running.append(listening_socket(app, clock, **changes))
        return await running[-1].__aenter__()

    yield start
    for each in running:
        await each.__aexit__(None, None, None)
