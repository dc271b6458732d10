"""The private parts of uvicorn and httptools that the server uses.

A test fails if its private part changes, or if a fault with a workaround in `src/server` was fixed. Remove
the workaround then, and its line in docs/private-parts.md.
"""

import asyncio
import hashlib
import inspect
import signal
import subprocess
import sys
import textwrap

import pytest
import uvicorn
from uvicorn.lifespan.on import LifespanOn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from tests.support.server import environment, free_port
from tests.unit.server.conftest import answer, echo, until, whole_body

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"

# ------------------------------------------------------------------ parts that may move

REPLACED = {
    HttpToolsProtocol.data_received: "02c2572f1df5",
    HttpToolsProtocol.on_message_begin: "0efab6f9456c",
    HttpToolsProtocol.on_header: "374f1e380c06",
    HttpToolsProtocol.on_headers_complete: "7e259152e5aa",
    HttpToolsProtocol.on_message_complete: "377f9122ee6f",
    HttpToolsProtocol.on_response_complete: "5684fd801d06",
    RequestResponseCycle.run_asgi: "c3a6430de812",
    RequestResponseCycle.send: "cfc844910295",
    LifespanOn.startup: "1d03bf344804",
    LifespanOn.main: "3ea95be39174",
    uvicorn.Server.serve: "20557f5f925b",
    uvicorn.Server.startup: "61dd959a73fc",
    uvicorn.Server.shutdown: "9f8a90ed456d",
    Multiprocess.run: "451a5dcf4789",
}
"""Methods that the server replaces or depends on, with the digest of their source."""


@pytest.mark.parametrize("method", REPLACED, ids=lambda method: method.__qualname__)
def test_a_copied_method_of_uvicorn_is_unchanged(method):
    source = textwrap.dedent(inspect.getsource(method))
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == REPLACED[method]


@pytest.fixture
def config():
    config = uvicorn.Config(echo, log_config=None)
    config.load()
    return config


def attributes(names):
    return [pytest.param(name, id=name) for name in names.split()]


@pytest.mark.parametrize(
    "name",
    attributes(
        "access_log access_logger app app_state asgi_version client cycle expect_100_continue flow headers "
        "logger parser pipeline root_path scheme scope server server_state transport "
        "_should_upgrade _start_asgi_task"
    ),
)
async def test_a_connection_of_uvicorn_has_the_attribute(config, name):
    assert hasattr(HttpToolsProtocol(config, ServerState(), {}), name)


@pytest.mark.parametrize(
    "name",
    attributes(
        "access_log default_headers disconnected flow keep_alive message_event more_body on_response "
        "response_complete response_started scope transport waiting_for_100_continue"
    ),
)
def test_a_request_cycle_of_uvicorn_has_the_attribute(name):
    given = dict.fromkeys(inspect.signature(RequestResponseCycle).parameters)
    assert hasattr(RequestResponseCycle(**given), name)


@pytest.mark.parametrize("name", attributes("connections default_headers tasks total_requests"))
def test_the_shared_state_of_uvicorn_has_the_attribute(name):
    assert hasattr(ServerState(), name)


@pytest.mark.parametrize(
    "name", attributes("handle_exit on_tick should_exit started force_exit server_state")
)
def test_a_server_of_uvicorn_has_the_attribute(config, name):
    assert hasattr(uvicorn.Server(config), name)


@pytest.mark.parametrize("name", attributes("http_protocol_class loaded_app ssl ws_protocol_class"))
def test_a_loaded_config_of_uvicorn_has_the_attribute(config, name):
    assert hasattr(config, name)


@pytest.mark.parametrize("name", attributes("start is_ready ping terminate kill join pid exitcode"))
def test_a_worker_process_of_uvicorn_has_the_attribute(name):
    assert hasattr(Process, name)


def test_the_proxy_headers_middleware_is_outermost(config):
    assert isinstance(config.loaded_app, ProxyHeadersMiddleware)
    assert config.loaded_app.app is echo


# ------------------------------------------------------------------ faults that may be gone


@pytest.fixture
async def plain(serve):
    """Return a connection of uvicorn's own protocol."""

    async def connect(app=echo):
        server = await serve(app, protocol=HttpToolsProtocol)
        return await server.connect()

    return connect


async def test_uvicorn_still_reads_trailers_as_headers(plain):
    connection = await plain()
    await connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert b"x-trailer" in (await connection.answer()).body


async def test_uvicorn_still_serves_requests_without_a_host(plain):
    connection = await plain()
    await connection.send(b"GET /a HTTP/1.1\r\n\r\n")
    assert (await connection.answer()).status == 200


async def test_uvicorn_still_serves_other_versions(plain):
    connection = await plain()
    await connection.send(b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n")
    assert (await connection.answer()).status == 200


async def test_uvicorn_still_serves_unknown_transfer_codings(plain):
    connection = await plain()
    await connection.send(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert (await connection.answer()).status == 200


async def test_uvicorn_still_loses_the_body_of_a_request_that_asks_for_an_upgrade(plain):
    connection = await plain()
    await connection.send(POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc")
    assert b"abc" not in (await connection.answer()).body


async def test_uvicorn_still_keeps_a_connection_whose_request_it_answered_before_its_end(plain):
    async def refuse(scope, receive, send):
        await answer(send, 413, {})

    connection = await plain(refuse)
    await connection.send(POST + b"Content-Length: 1000000\r\n\r\n")
    assert not (await connection.answer()).closes


async def test_uvicorn_still_answers_a_malformed_request_before_earlier_ones(plain):
    connection = await plain()
    await connection.send(GET + b"no request\r\n\r\n")
    assert (await connection.answer()).status == 400


async def test_uvicorn_still_accepts_a_head_of_any_size(plain):
    connection = await plain()
    await connection.send(GET[:-2] + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n")
    assert (await connection.answer()).status == 200


async def test_uvicorn_still_waits_for_a_head_without_a_timer(serve):
    server = await serve(protocol=HttpToolsProtocol)
    await (await server.connect()).send(GET[:-2])
    await until(lambda: server.connections.all()[0].scope)
    assert server.connections.all()[0].timeout_keep_alive_task is None


async def test_uvicorn_still_closes_idle_connections_at_once_when_it_stops(serve):
    server = await serve(protocol=HttpToolsProtocol)
    connection = await server.connect()
    server.connections.all()[0].shutdown()
    assert await connection.ends() == b""


async def test_uvicorn_still_answers_cancelled_requests_with_500_in_plain_text(serve):
    async def read(scope, receive, send):
        await whole_body(receive)

    server = await serve(read, protocol=HttpToolsProtocol)
    connection = await server.connect()
    await connection.send(POST + b"Content-Length: 3\r\n\r\n")
    await until(lambda: server.connections.tasks)
    for task in server.connections.tasks:
        task.cancel()
    refused = await connection.answer()
    assert (refused.status, refused.body) == (500, b"Internal Server Error")


async def test_uvicorn_still_ignores_a_signal_during_the_start(config):
    async def never(scope, receive, send):
        await asyncio.Event().wait()

    config.loaded_app = never
    server = uvicorn.Server(config)
    server.lifespan = LifespanOn(config)
    starting = asyncio.create_task(server.startup())
    await asyncio.sleep(0)
    server.handle_exit(signal.SIGTERM, None)
    done, _ = await asyncio.wait((starting,), timeout=0.3)
    assert not done
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)


@pytest.mark.slow
def test_uvicorn_still_ends_with_0_when_no_worker_can_start(tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    command = [sys.executable, "-m", "uvicorn", "broken:app", "--workers", "2", "--port", str(free_port())]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 0
