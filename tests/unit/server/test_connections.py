"""The limit on the number of connections, and their timeouts."""

import asyncio
import json
import socket

import pytest

from src.server.protocol import LINGER_SECONDS, STALLED_SECONDS
from tests.support.raw_http import RawConnection
from tests.unit.server.conftest import HEAD_SECONDS, IDLE_SECONDS, answer, until, whole_body

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def only_connection(server):
    (connection,) = server.connections.connections
    return connection


def unsent_bytes(server):
    return sum(connection.transport.get_write_buffer_size() for connection in server.connections.all())


def has_request(server):
    return all(connection.cycle is not None for connection in server.connections.all())


def wait(server, clock, seconds):
    """Move time by `seconds`. The server checks its connections once a second."""
    for _ in range(round(seconds)):
        server.connections.sweep()
        clock.jump(1)
    server.connections.sweep()


async def is_open(connection):
    """Return whether the connection still answers a request."""
    await connection.send(GET)
    return (await connection.answer()).status == 200


async def test_a_connection_that_sends_nothing_is_closed(serve, clock):
    server = await serve()
    silent = await server.connect()
    wait(server, clock, HEAD_SECONDS - 1)
    assert await is_open(await server.connect())
    assert len(server.connections.connections) == 2
    wait(server, clock, 1)
    assert await silent.ends() == b""


async def test_an_incomplete_head_is_answered_408_and_its_connection_closed(serve, clock):
    server = await serve()
    slow = await server.connect()
    for end in (-10, -6, -2):
        await slow.send(GET[end - 4 : end] if end > -10 else GET[:end])
        await until(lambda end=end: only_connection(server)._pending_bytes == len(GET) + end)
        wait(server, clock, 3)  # a part of the head does not restart its timeout
    wait(server, clock, 1)
    response = await slow.answer()
    assert (response.status, response.closes) == (408, True)
    assert json.loads(response.body)["code"] == "REQUEST_TIMEOUT"
    assert await slow.ends() == b""


async def test_an_idle_connection_is_closed_and_a_used_one_is_kept(serve, clock):
    server = await serve()
    idle, busy = await server.connect(), await server.connect()
    assert await is_open(idle)
    for _ in range(3):
        assert await is_open(busy)
        wait(server, clock, IDLE_SECONDS - 1)
    assert await idle.ends() == b""
    assert await is_open(busy)


async def test_an_incomplete_head_on_a_kept_connection_is_answered_408(serve, clock):
    server = await serve()
    kept = await server.connect()
    assert await is_open(kept)
    await kept.send(GET[:-4])
    await until(lambda: only_connection(server)._pending_bytes)
    wait(server, clock, HEAD_SECONDS)
    assert (await kept.answer()).status == 408
    assert await kept.ends() == b""


async def test_a_request_may_take_any_time_to_be_answered(serve, clock):
    may_answer = asyncio.Event()

    async def slow(scope, receive, send):
        await may_answer.wait()
        await answer(send, 200, {})

    server = await serve(slow)
    connection = await server.connect()
    await connection.send(GET)
    await until(lambda: has_request(server))
    wait(server, clock, 300)
    may_answer.set()
    assert (await connection.answer()).status == 200


async def test_a_client_that_does_not_close_after_its_last_response_is_disconnected(serve, clock):
    server = await serve()
    connection = await server.connect()
    await connection.send(b"no request\r\n\r\n")
    assert (await connection.answer()).status == 400
    wait(server, clock, LINGER_SECONDS)
    await until(lambda: not server.connections.connections)


@pytest.mark.parametrize("ends_with_it", [False, True])
async def test_a_client_that_stops_reading_its_response_is_disconnected(serve, clock, ends_with_it):
    async def long(scope, receive, send):
        await answer(send, 200, b"x" * 30_000_000)

    server = await serve(long)
    with socket.create_connection(("127.0.0.1", server.port)) as reader:
        reader.setblocking(False)
        reader.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if ends_with_it else GET)
        await until(lambda: unsent_bytes(server))
        for _ in range(3):
            wait(server, clock, STALLED_SECONDS - 1)
            before = unsent_bytes(server)
            while unsent_bytes(server) == before:
                await asyncio.get_running_loop().sock_recv(reader, 2**16)
        wait(server, clock, STALLED_SECONDS)
        await until(lambda: not server.connections.connections)


# ------------------------------------------------------------------ how many


async def test_a_connection_beyond_the_limit_closes_the_longest_idle_one(serve, clock):
    server = await serve(max_connections=3)
    first = await server.connect()
    wait(server, clock, 2)
    second, third = await server.connect(), await server.connect()
    wait(server, clock, 2)
    assert await is_open(await server.connect())
    assert await first.ends() == b""
    assert await is_open(second)  # this request makes it newer than the third connection
    assert await is_open(await server.connect())
    assert await third.ends() == b""


async def test_a_connection_with_a_request_is_not_closed_for_another_connection(serve, clock):
    may_answer = asyncio.Event()

    async def slow(scope, receive, send):
        await may_answer.wait()
        await answer(send, 200, {})

    server = await serve(slow, max_connections=2)
    busy = [await server.connect(), await server.connect()]
    for connection in busy:
        await connection.send(GET)
    await until(lambda: has_request(server))
    wait(server, clock, 2)
    refused = await RawConnection.open(server.port)
    response = await refused.answer()
    assert (response.status, response.closes, response.headers["retry-after"]) == (503, True, "1")
    assert json.loads(response.body)["code"] == "TOO_MANY_CONNECTIONS"
    await refused.close()
    may_answer.set()
    assert [(await connection.answer()).status for connection in busy] == [200, 200]


async def test_a_flood_of_silent_connections_does_not_block_other_clients(serve, clock):
    server = await serve(max_connections=20)
    for _ in range(5):
        flood = [await RawConnection.open(server.port) for _ in range(30)]
        await until(lambda: len(server.connections.connections) == 20)
        wait(server, clock, 1)
        client = await RawConnection.open(server.port)
        assert await is_open(client)
        assert len(server.connections.connections) <= 21
        for connection in (*flood, client):
            await connection.close()
        await until(lambda: not server.connections.connections)


# ------------------------------------------------------------------ the end


async def test_an_aborted_request_without_an_answer_gets_a_503(serve):
    bodies = []

    async def reading(scope, receive, send):
        bodies.append(await whole_body(receive))

    server = await serve(reading)
    half_sent, silent = await server.connect(), await server.connect()
    await half_sent.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    await until(lambda: any(connection.cycle for connection in server.connections.all()))
    for connection in server.connections.all():
        connection.abort_request()
    response = await half_sent.answer()
    assert (response.status, response.closes, response.headers["retry-after"]) == (503, True, "1")
    assert json.loads(response.body)["code"] == "STOPPING"
    assert await half_sent.ends() == b""
    assert bodies == [None]
    assert await silent.ends() == b""
