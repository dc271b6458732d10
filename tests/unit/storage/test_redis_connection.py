"""A connection, against a server that says just what it is told to say."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from src.storage.redis.connection import RedisConnection, pack_commands
from src.storage.redis.link import RedisAddress, connect

PING = pack_commands([("PING",)])


class Server:
    """Answers each connection's questions with what `says` holds, in order; of None it hangs up instead."""

    def __init__(self):
        self.says = []
        self.heard = []
        self.writers = []

    async def serve(self, reader, writer):
        self.writers.append(writer)
        while data := await reader.read(65536):
            self.heard.append(data)
            answer = self.says.pop(0)
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
async def wire(server, tmp_path):
    client = connect(RedisAddress(f"unix://{tmp_path / 'socket'}"))
    wire = RedisConnection(client.connection_pool)
    yield wire
    await wire.aclose()


async def ask(wire, *commands):
    said = pack_commands(commands or [("PING",)]), len(commands) or 1
    return await (wire.send(*said) if wire.is_open else wire.open_and_send(*said))


async def test_what_is_asked_together_is_sent_together_and_answered_in_order(server, wire):
    server.says = [b"+PONG\r\n:5\r\n$-1\r\n"]
    assert await ask(wire, ("PING",), ("GET", "ä", b"\xff", 7, 0.5), ("X",)) == [b"PONG", 5, None]
    said = b"*1\r\n$4\r\nPING\r\n*5\r\n$3\r\nGET\r\n$2\r\n\xc3\xa4\r\n$1\r\n\xff\r\n$1\r\n7\r\n$3\r\n0.5\r\n"
    assert server.heard == [said + b"*1\r\n$1\r\nX\r\n"]


async def test_a_reply_may_come_in_pieces(server, wire):
    reply = b"*2\r\n$4\r\na\r\nb\r\n*1\r\n:12\r\n"
    server.says = [[reply[n : n + 1] for n in range(len(reply))], [reply + b"+O", b"K\r\n"]]
    assert await ask(wire, ("X",)) == [[b"a\r\nb", [12]]]
    assert await ask(wire, ("X",), ("Y",)) == [[b"a\r\nb", [12]], b"OK"]


async def test_a_refusal_is_a_reply_wherever_it_stands(server, wire):
    server.says = [b"-NOSCRIPT none\r\n*2\r\n-ERR bad\r\n:1\r\n"]
    refused, (inner, other) = await ask(wire, ("X",), ("Y",))
    assert isinstance(refused, NoScriptError)
    assert isinstance(inner, ResponseError)
    assert other == 1


@pytest.mark.parametrize(
    "said",
    [
        None,
        [b"$5\r\nhal", b""],
        b"-LOADING it\r\n",
        b"-NOAUTH who are you\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
async def test_a_connection_that_comes_to_nothing_is_lost_and_made_anew(server, wire, said):
    server.says = [b"+PONG\r\n", said, b"+PONG\r\n"]
    await ask(wire)
    lost = wire.send(PING, 1)
    if isinstance(said, list):
        await asyncio.sleep(0.05)
        server.writers[0].close()
    with pytest.raises(RedisConnectionError):
        await lost
    assert not wire.is_open
    if isinstance(said, list):
        server.says = [b"+PONG\r\n"]
    assert await ask(wire) == [b"PONG"]
    assert len(server.writers) == 2


async def test_a_connection_that_is_closed_or_speaks_unasked_is_not_asked_again(server, wire):
    for number, ends in enumerate((lambda w: w.close(), lambda w: w.write(b"+HELLO\r\n")), 1):
        server.says = [b"+PONG\r\n"]
        await ask(wire)
        ends(server.writers[-1])
        async with asyncio.timeout(5):
            while wire.is_open:
                await asyncio.sleep(0)
        server.says = [b"+PONG\r\n"]
        assert await ask(wire) == [b"PONG"]
        assert len(server.writers) == 1 + number
        assert wire.is_open


async def test_an_answer_that_was_given_up_is_nobody_elses(server, wire):
    server.says = [b"+first\r\n", [], b"+second\r\n"]
    await ask(wire)
    asked = wire.send(PING, 1)
    await asyncio.sleep(0.02)
    asked.cancel()
    wire.abort()
    assert not wire.is_open
    server.writers[0].write(b"+late\r\n")
    assert await ask(wire) == [b"second"]


async def test_a_reply_too_many_is_no_reply_to_the_next_question(server, wire):
    server.says = [b"+PONG\r\n+EXTRA\r\n", b"+PONG\r\n"]
    assert await ask(wire) == [b"PONG"]
    assert not wire.is_open
    assert await ask(wire) == [b"PONG"]
    assert len(server.writers) == 2


async def test_a_login_that_was_given_up_is_begun_again_on_another_connection(server, tmp_path):
    """Its reply was taken for the one to the first command."""
    client = connect(RedisAddress(f"unix://{tmp_path / 'socket'}?password=secret"))
    wire = RedisConnection(client.connection_pool)
    server.says = [[], b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n"]  # redis-py logs in twice on a unix socket
    opening = asyncio.create_task(wire.open_and_send(PING, 1))
    async with asyncio.timeout(5):
        while not server.heard:
            await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    server.writers[0].write(b"+OK\r\n")
    assert await ask(wire) == [b"PONG"]
    assert len(server.writers) == 2
    await wire.aclose()
