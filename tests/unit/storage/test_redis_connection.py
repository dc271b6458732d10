"""A connection to a server with replies set by the test."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from src.storage.redis.connection import RedisConnection, pack_commands
from src.storage.redis.link import RedisAddress, connect

PING = pack_commands([("PING",)])


class Server:
    """A server that sends `replies` in order, one for each request. None closes the connection."""

    def __init__(self):
        self.replies = []
        self.received = []
        self.writers = []

    async def serve(self, reader, writer):
        self.writers.append(writer)
        while data := await reader.read(65536):
            self.received.append(data)
            answer = self.replies.pop(0)
            if answer is None:
                break
            for piece in answer if isinstance(answer, list) else [answer]:
                writer.write(piece)
                await asyncio.sleep(0)
        writer.close()


@pytest.fixture
async def server(tmp_path):
    server = Server()
    listening = await asyncio.start_unix_server(server.serve, tmp_path / "socket")
    yield server
    listening.close()
    for writer in server.writers:
        writer.close()


@pytest.fixture
async def connection(server, tmp_path):
    client = connect(RedisAddress(f"unix://{tmp_path / 'socket'}"))
    connection = RedisConnection(client.connection_pool)
    yield connection
    await connection.aclose()


async def run_commands(connection, *commands):
    packed = pack_commands(commands or [("PING",)]), len(commands) or 1
    return await (connection.send(*packed) if connection.is_open else connection.open_and_send(*packed))


async def test_commands_of_one_round_trip_are_sent_together_and_answered_in_order(server, connection):
    server.replies = [b"+PONG\r\n:5\r\n$-1\r\n"]
    assert await run_commands(connection, ("PING",), ("GET", "ä", b"\xff", 7, 0.5), ("X",)) == [
        b"PONG",
        5,
        None,
    ]
    packed = (
        b"*1\r\n$4\r\nPING\r\n*5\r\n$3\r\nGET\r\n$2\r\n\xc3\xa4\r\n$1\r\n\xff\r\n$1\r\n7\r\n$3\r\n0.5\r\n"
    )
    assert server.received == [packed + b"*1\r\n$1\r\nX\r\n"]


async def test_a_reply_may_come_in_pieces(server, connection):
    reply = b"*2\r\n$4\r\na\r\nb\r\n*1\r\n:12\r\n"
    server.replies = [[reply[n : n + 1] for n in range(len(reply))], [reply + b"+O", b"K\r\n"]]
    assert await run_commands(connection, ("X",)) == [[b"a\r\nb", [12]]]
    assert await run_commands(connection, ("X",), ("Y",)) == [[b"a\r\nb", [12]], b"OK"]


async def test_an_error_reply_is_returned_at_any_position(server, connection):
    server.replies = [b"-NOSCRIPT none\r\n*2\r\n-ERR bad\r\n:1\r\n"]
    refused, (inner, other) = await run_commands(connection, ("X",), ("Y",))
    assert isinstance(refused, NoScriptError)
    assert isinstance(inner, ResponseError)
    assert other == 1


@pytest.mark.parametrize(
    "packed",
    [
        None,
        [b"$5\r\nhal", b""],
        b"-LOADING it\r\n",
        b"-NOAUTH who are you\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
async def test_a_connection_that_could_not_be_opened_is_opened_again(server, connection, packed):
    server.replies = [b"+PONG\r\n", packed, b"+PONG\r\n"]
    await run_commands(connection)
    lost = connection.send(PING, 1)
    if isinstance(packed, list):
        await asyncio.sleep(0.05)
        server.writers[0].close()
    with pytest.raises(RedisConnectionError):
        await lost
    assert not connection.is_open
    if isinstance(packed, list):
        server.replies = [b"+PONG\r\n"]
    assert await run_commands(connection) == [b"PONG"]
    assert len(server.writers) == 2


async def test_a_connection_that_is_closed_or_sends_unrequested_bytes_is_not_reused(server, connection):
    for number, ends in enumerate((lambda w: w.close(), lambda w: w.write(b"+HELLO\r\n")), 1):
        server.replies = [b"+PONG\r\n"]
        await run_commands(connection)
        ends(server.writers[-1])
        async with asyncio.timeout(5):
            while connection.is_open:
                await asyncio.sleep(0)
        server.replies = [b"+PONG\r\n"]
        assert await run_commands(connection) == [b"PONG"]
        assert len(server.writers) == 1 + number
        assert connection.is_open


async def test_the_reply_of_a_cancelled_round_trip_reaches_no_other_caller(server, connection):
    server.replies = [b"+first\r\n", [], b"+second\r\n"]
    await run_commands(connection)
    asked = connection.send(PING, 1)
    await asyncio.sleep(0.02)
    asked.cancel()
    connection.abort()
    assert not connection.is_open
    server.writers[0].write(b"+late\r\n")
    assert await run_commands(connection) == [b"second"]


async def test_a_surplus_reply_is_not_used_for_the_next_command(server, connection):
    server.replies = [b"+PONG\r\n+EXTRA\r\n", b"+PONG\r\n"]
    assert await run_commands(connection) == [b"PONG"]
    assert not connection.is_open
    assert await run_commands(connection) == [b"PONG"]
    assert len(server.writers) == 2


async def test_a_cancelled_login_is_repeated_on_another_connection(server, tmp_path):
    """The reply to the login would be read as the reply to the first command."""
    client = connect(RedisAddress(f"unix://{tmp_path / 'socket'}?password=secret"))
    connection = RedisConnection(client.connection_pool)
    server.replies = [[], b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n"]  # redis-py logs in twice on a unix socket
    opening = asyncio.create_task(connection.open_and_send(PING, 1))
    async with asyncio.timeout(5):
        while not server.received:
            await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    server.writers[0].write(b"+OK\r\n")
    assert await run_commands(connection) == [b"PONG"]
    assert len(server.writers) == 2
    await connection.aclose()
