"""Every failure of the link reaches all callers, is logged once with advice, and ends."""

import asyncio
import logging
import socket

import pytest
from redis.asyncio.connection import Connection, ConnectionPool, UnixDomainSocketConnection

from src.resilience.clock import SystemClock
from src.resilience.redis.scripts import Script
from src.services.errors import StorageUnavailableError
from src.storage.redis.failure_log import REMINDER_SECONDS, STILL_LOST_SECONDS
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.support.clock import FakeClock
from tests.support.server import free_port

ECHO = Script("return ARGV[1]")


class UnknownBaseException(BaseException):
    """An error that `except Exception` does not catch."""


CAUSES = [
    OSError(24, "Too many open files"),
    MemoryError(),
    TypeError("unexpected keyword argument"),
    RuntimeError("no running event loop"),
    StopIteration(),
    UnknownBaseException(),
]


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def link(own_redis):
    # If a callback fails, the exception handler of the loop is called. This test does not check that.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    yield link
    await link.aclose()


def callers(link):
    return [
        *(link.send("PING") for _ in range(5)),
        link.run(ECHO, [], ["x"], short_deadline=True),
        link.run(ECHO, [], ["x"], timeout_seconds=0.5),
    ]


async def assert_all_fail_and_the_link_recovers(link, patch):
    async with asyncio.timeout(5):
        results = await asyncio.gather(*callers(link), return_exceptions=True)
        assert [isinstance(result, StorageUnavailableError) for result in results] == [True] * 7
        assert not link.is_up
        patch.undo()
        await until(lambda: link.is_up)
        assert await asyncio.gather(*callers(link)) == [b"PONG"] * 5 + [b"x"] * 2


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
async def test_an_error_before_a_round_trip_begins_reaches_every_caller(link, monkeypatch, cause):
    def fail(_pool):
        raise cause

    monkeypatch.setattr(ConnectionPool, "make_connection", fail)
    await assert_all_fail_and_the_link_recovers(link, monkeypatch)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
async def test_an_error_while_connecting_reaches_every_caller(link, monkeypatch, cause):
    async def fail(_connection):
        raise cause

    monkeypatch.setattr(UnixDomainSocketConnection, "_connect", fail)
    await assert_all_fail_and_the_link_recovers(link, monkeypatch)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
async def test_an_error_while_sending_reaches_every_caller(link, monkeypatch, cause):
    await asyncio.gather(*callers(link))

    def fail(_wire, _commands, _replies):
        raise cause

    monkeypatch.setattr("src.storage.redis.connection.ReplyProtocol.send", fail)
    await assert_all_fail_and_the_link_recovers(link, monkeypatch)


async def test_a_cancelled_round_trip_fails_its_callers_and_cancels_none(link, monkeypatch):
    async def fail(_connection):
        raise asyncio.CancelledError

    monkeypatch.setattr(UnixDomainSocketConnection, "_connect", fail)
    async with asyncio.timeout(5):
        results = await asyncio.gather(*callers(link), return_exceptions=True)
    assert [isinstance(result, StorageUnavailableError) for result in results] == [True] * 7


async def test_an_error_while_logging_does_not_block_callers(link, own_redis, monkeypatch):
    def fail(_log, _error):
        raise RecursionError

    monkeypatch.setattr("src.storage.redis.failure_log.FailureLog.lost", fail)
    await link.send("PING")
    own_redis.freeze()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*callers(link), return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)
    own_redis.thaw()
    await until(lambda: link.is_up)


async def test_a_server_that_cannot_be_restarted_is_still_probed(own_redis):
    outcomes = [ValueError("a defect"), OSError("no disk"), None]

    async def revive():
        if outcome := outcomes.pop(0):
            raise outcome
        own_redis.start()

    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock(), revive)
    own_redis.kill()
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    await until(lambda: link.is_up)
    assert not outcomes
    await link.aclose()


async def test_a_rejected_connection_does_not_affect_other_connections(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    await link.send("PING")
    with own_redis.connect() as outside:
        outside.config_set("maxclients", 1)
        with pytest.raises(StorageUnavailableError, match="max number of clients"):
            await asyncio.gather(link.send("PING"), link.run(ECHO, [], ["x"], timeout_seconds=1))
        await until(lambda: link.is_up)
        assert await link.send("ECHO", "over the one that is kept") == b"over the one that is kept"
    await link.aclose()


# ---------------------------------------------------------------- closing


async def test_closing_waits_for_what_is_still_being_gathered(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    loaded = []

    async def load(numbers):
        loaded.extend(numbers)
        return [await link.send("INCRBY", "sum", number) for number in numbers]

    gathered = link.tick_loader(load).add(5)
    added = asyncio.ensure_future(link.send("ECHO", "added"))
    long = [asyncio.ensure_future(link.run(ECHO, [], [n], timeout_seconds=9)) for n in range(9)]
    await asyncio.sleep(0)
    await link.aclose()
    assert (gathered.done(), added.done(), [run.done() for run in long]) == (True, True, [True] * 9)
    assert (gathered.result(), added.result(), loaded) == (5, b"added", [5])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with own_redis.connect() as outside:
        await until(lambda: len(outside.client_list()) == 1)


async def test_a_closed_link_sends_nothing(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    await link.send("PING")
    await link.aclose()
    round_trips = link.round_trips
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    assert await link.try_send("PING") is None
    assert link.round_trips == round_trips


async def test_closing_does_not_wait_for_callers_that_have_gone(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    cancelled = asyncio.create_task(link.send("PING"))
    await asyncio.sleep(0)
    cancelled.cancel()
    async with asyncio.timeout(5):
        await link.aclose()
    await asyncio.wait([cancelled])
    assert asyncio.all_tasks() - {asyncio.current_task()} == set()


# ---------------------------------------------------------------- log


def logged(caplog):
    return [
        (record.message, record.levelno, record.address, record.code)
        for record in caplog.records
        if record.message != "redis_back"
    ]


async def serving(answer):
    """Start a server that answers everything with `answer`, and return the server and its port."""

    async def serve(reader, writer):
        if answer is None:
            writer.close()
            return
        if await reader.read(1000):
            writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    return listening, listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("scheme", "answer", "code"),
    [
        ("redis", b"HTTP/1.1 400 Bad Request\r\n\r\n", "NOT_REDIS"),
        ("redis", b"\x15\x03\x01\x00\x02\x02F", "NOT_REDIS"),
        ("redis", b"-DENIED Redis is running in protected mode\r\n", "PROTECTED_MODE"),
        ("redis", b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        ("redis", None, "CONNECTION_LOST"),
        ("rediss", b"-ERR Protocol error\r\n", "TLS"),
    ],
)
async def test_a_server_that_rejects_commands_is_reported(caplog, scheme, answer, code):
    listening, port = await serving(answer)
    address = RedisAddress(f"{scheme}://user:hunter2@127.0.0.1:{port}/3?password=hunter2")
    for url in (address.url, f"{scheme}://127.0.0.1:{port}"):
        link = RedisLink(connect(RedisAddress(url)), SystemClock(), address=str(address))
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
        assert not await link.ping()
        await link.aclose()
    listening.close()
    expected = ("redis_lost", logging.ERROR, f"{scheme}://127.0.0.1:{port}/3", code)
    assert logged(caplog) == [expected] * 2
    for record in caplog.records:
        assert record.reason
        assert record.advice.endswith(".")
        assert "hunter2" not in str(vars(record))


async def test_an_address_without_a_server_is_reported(caplog, monkeypatch):
    async def no_such_name(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    addresses = {
        f"redis://127.0.0.1:{free_port()}": "CONNECTION_REFUSED",
        "unix:///nowhere/redis.sock": "NO_SOCKET",
        "redis://no-such-host.invalid": "DNS",
    }
    for url in addresses:
        if "invalid" in url:
            monkeypatch.setattr(asyncio, "open_connection", no_such_name)
        link = RedisLink(connect(RedisAddress(url)), SystemClock(), address=url)
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
        await link.aclose()
    assert logged(caplog) == [("redis_lost", logging.ERROR, url, code) for url, code in addresses.items()]


async def test_a_rejected_login_is_reported(own_redis, caplog):
    with own_redis.connect() as outside:
        outside.execute_command("ACL", "SETUSER", "known", "on", ">secret", "+ping", "~*")
    urls = {
        f"{own_redis.url}?db=99": "NO_SUCH_DATABASE",
        f"{own_redis.url}?db=99999999999": "ConnectionError",
        f"{own_redis.url}?password=hunter2": "NO_PASSWORD_SET",
        f"unix://known@{own_redis.socket}?password=hunter2": "WRONGPASS",
        f"unix://known@{own_redis.socket}?password=secret&db=1": "NOPERM",
    }
    for url in urls:
        link = RedisLink(connect(RedisAddress(url)), SystemClock())
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
        assert not link.is_up
        await link.aclose()
    assert logged(caplog) == [("redis_lost", logging.ERROR, "", code) for code in urls.values()]
    assert "hunter2" not in "".join(str(vars(record)) for record in caplog.records)


async def test_the_errors_of_probes_are_logged_during_a_long_outage(own_redis, caplog, monkeypatch):
    clock = FakeClock()
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock, address="unix://here")
    await link.send("PING")
    own_redis.kill()
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")

    async def probe(times):
        probed = link.round_trips + times
        while link.round_trips < probed:
            await clock.advance(0.25)
            await asyncio.sleep(0.001)

    await probe(5)
    assert [code for _, _, _, code in logged(caplog)] == ["CONNECTION_LOST"]
    clock.jump(STILL_LOST_SECONDS)
    await probe(5)
    clock.jump(REMINDER_SECONDS)
    await probe(5)
    assert logged(caplog) == [
        ("redis_lost", logging.ERROR, "unix://here", "CONNECTION_LOST"),
        ("redis_still_lost", logging.ERROR, "unix://here", "NO_SOCKET"),
        ("redis_still_lost", logging.ERROR, "unix://here", "NO_SOCKET"),
    ]
    await link.aclose()


async def test_an_expected_rejection_is_not_logged(start_redis, caplog):
    server = start_redis("--rename-command", "CONFIG", "")
    link = RedisLink(connect(RedisAddress(server.url)), SystemClock())
    assert await link.try_send("CONFIG", "GET", "maxmemory-policy") is None
    assert await link.try_send("INFO", "memory")
    await link.aclose()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@cache:6380/2", "redis://cache:6380/2"),
        ("rediss://user:s%40cret@[::1]:6380", "rediss://[::1]:6380"),
        ("unix://user@/run/redis.sock?password=secret&db=3", "unix:///run/redis.sock?db=3"),
        ("embedded://", "embedded://"),
    ],
)
def test_an_address_is_shown_without_its_credentials(url, shown):
    assert str(RedisAddress(url)) == shown


def test_a_connection_reads_no_file():
    """By default, redis-py reads its own version from a file for each connection."""
    assert isinstance(
        connection := connect(RedisAddress("redis://h")).connection_pool.make_connection(), Connection
    )
    assert connection.driver_info is None
