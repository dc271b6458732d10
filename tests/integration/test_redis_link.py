"""The link to Redis: one round trip per tick, and errors while Redis is unavailable."""

import asyncio
import logging
import threading
import time
from contextvars import ContextVar

import pytest
import redis.asyncio

from src.resilience.clock import SystemClock
from src.resilience.redis.scripts import Script
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.storage.redis.batcher import BUDGET_SECONDS, MAX_DEDICATED, MAX_IN_FLIGHT
from src.storage.redis.failure_log import REMINDER_SECONDS
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.support.clock import FakeClock
from tests.support.redis_server import RedisServer

ECHO = Script("return ARGV[1]")
WRITE = Script("return redis.call('SET', 'word', ARGV[1])")
BUSY = Script("local n = 0 while n < tonumber(ARGV[1]) do n = n + 1 end return n")


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def link(own_redis: RedisServer):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    yield link
    await link.aclose()


async def test_commands_of_one_tick_share_a_round_trip(redis_link):
    await redis_link.send("PING")
    before = redis_link.round_trips
    replies = await asyncio.gather(*(redis_link.send("ECHO", str(n)) for n in range(50)))
    assert replies == [str(n).encode() for n in range(50)]
    assert redis_link.round_trips == before + 1


async def test_a_rejected_command_does_not_affect_the_others_of_its_round_trip(redis_link):
    await redis_link.send("SET", "word", "x")
    wrong, right = await asyncio.gather(
        redis_link.send("INCR", "word"), redis_link.send("GET", "word"), return_exceptions=True
    )
    assert "not an integer" in str(wrong)
    assert right == b"x"


async def test_a_flushed_script_is_loaded_again(redis_link, redis_server):
    assert await redis_link.run(ECHO, [], ["a"]) == b"a"
    with redis_server.connect() as client:
        client.script_flush()
    assert await redis_link.run(ECHO, [], ["b"]) == b"b"


async def test_a_cancelled_caller_does_not_affect_other_callers(redis_link):
    leaver = asyncio.create_task(redis_link.send("ECHO", "a"))
    stayer = asyncio.create_task(redis_link.send("ECHO", "b"))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == b"b"


async def test_a_killed_server_is_reported_at_once_and_found_again(link, own_redis):
    await link.send("SET", "kept", "1")
    own_redis.kill()
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    assert not link.is_up
    round_trips = link.round_trips
    for _ in range(100):
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
    assert link.round_trips - round_trips <= 2  # the traces of the probe, not of the callers
    own_redis.start()
    await until(lambda: link.is_up)
    assert await link.send("GET", "kept") == b"1"


async def test_a_frozen_server_costs_one_timeout_for_all_callers(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    calls = [link.send("PING") for _ in range(200)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)
    own_redis.thaw()
    await until(lambda: link.is_up)
    assert await link.send("PING") == b"PONG"


async def test_redis_is_not_unavailable_while_it_runs_a_long_script(link):
    long_run = asyncio.create_task(link.run(BUSY, [], [15_000_000], timeout_seconds=30))
    await asyncio.sleep(0.05)
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    assert link.is_up
    assert await long_run == 15_000_000
    assert await link.send("PING") == b"PONG"


async def test_a_caller_with_a_short_deadline_times_out_without_ending_the_round_trip(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    patient = asyncio.create_task(link.send("ECHO", "patient"))
    with pytest.raises(StorageUnavailableError, match=r"no answer within 0\.25 s"):
        await link.run(ECHO, [], ["short_deadline"], short_deadline=True)
    assert link.is_up
    own_redis.thaw()
    assert await patient == b"patient"


async def test_after_one_timeout_short_deadlines_fail_at_once_until_redis_answers(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    patient = asyncio.create_task(link.send("ECHO", "patient"))
    first = asyncio.create_task(link.run(ECHO, [], ["first"], short_deadline=True))
    await asyncio.sleep(BUDGET_SECONDS / 2)
    second = asyncio.create_task(link.run(ECHO, [], ["second"], short_deadline=True))
    await asyncio.wait((first, second))
    third = asyncio.create_task(link.run(ECHO, [], ["third"], short_deadline=True))
    for _ in range(3):
        await asyncio.sleep(0)
    assert [isinstance(task.exception(), StorageUnavailableError) for task in (first, second, third)] == [
        True
    ] * 3
    assert not patient.done()
    own_redis.thaw()
    assert await patient == b"patient"
    assert await link.run(ECHO, [], ["fourth"], short_deadline=True) == b"fourth"


async def test_a_busy_event_loop_is_not_taken_for_an_outage_of_redis(redis_link):
    short_deadline = asyncio.create_task(redis_link.run(ECHO, [], ["x"], short_deadline=True))
    for _ in range(4):
        await asyncio.sleep(0)
        time.sleep(BUDGET_SECONDS)  # the answer is not read in the meantime
    assert await short_deadline == b"x"


async def test_a_command_behind_silent_round_trips_waits_no_longer_than_they_do(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    began = time.monotonic()
    took = {}

    async def call(name, reply):
        with pytest.raises(StorageUnavailableError):
            await reply
        took[name] = time.monotonic() - began

    async with asyncio.TaskGroup() as calls:
        for number in range(MAX_IN_FLIGHT + 20):
            calls.create_task(call(f"patient {number}", link.send("PING")))
            calls.create_task(
                call(f"short_deadline {number}", link.run(ECHO, [], ["x"], short_deadline=True))
            )
            await asyncio.sleep(0.01)  # a separate tick
    last = 0.01 * (MAX_IN_FLIGHT + 20)
    assert (
        max(seconds for name, seconds in took.items() if name.startswith("short"))
        < BUDGET_SECONDS + last + 0.2
    )
    assert max(took.values()) < 0.9


async def test_a_silent_redis_is_detected_even_without_waiting_callers(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    with pytest.raises(StorageUnavailableError):
        await link.run(ECHO, [], ["x"], short_deadline=True)
    assert link.is_up
    await until(lambda: not link.is_up)


async def test_long_runs_above_the_limit_of_connections_wait(link):
    together = 3 * (MAX_IN_FLIGHT + MAX_DEDICATED)
    runs = [link.run(ECHO, [], [n], timeout_seconds=30) for n in range(together)]
    assert await asyncio.gather(*runs) == [str(n).encode() for n in range(together)]


async def test_the_number_of_connections_is_limited(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    with own_redis.connect() as outside:
        try:
            short = [link.send("ECHO", n) for n in range(50)]
            long = [link.run(BUSY, [], [10_000], timeout_seconds=30) for _ in range(3 * MAX_DEDICATED)]
            await asyncio.gather(*short, *long)
            assert 1 < len(outside.client_list()) - 1 <= MAX_IN_FLIGHT + MAX_DEDICATED
        finally:
            await link.aclose()
        await until(lambda: len(outside.client_list()) == 1)  # closed with the link


async def test_a_connection_that_redis_closed_is_opened_again(link, own_redis):
    await link.send("PING")
    with own_redis.connect() as outside:
        assert outside.client_kill_filter(_type="normal", skipme=True) == 1
    await asyncio.sleep(0.05)  # the loop is notified in this tick
    assert await link.send("ECHO", "a") == b"a"
    assert link.is_up


async def test_a_connection_that_cannot_be_made_in_time_is_an_outage(link, monkeypatch):
    async def connect_without_success(self):
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(redis.asyncio.UnixDomainSocketConnection, "_connect", connect_without_success)
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
        assert not link.is_up
    await until(lambda: link.is_up)


async def test_long_runs_that_wait_fail_with_the_others_when_redis_is_lost(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    runs = [link.run(ECHO, [], ["x"], timeout_seconds=0.3) for _ in range(3 * MAX_DEDICATED)]
    began = time.monotonic()
    results = await asyncio.gather(*runs, return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)
    assert time.monotonic() - began < 0.6
    assert not link.is_up


# ---------------------------------------------------------------- refusals


REFUSALS = {
    "OOM": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
    "READONLY": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    "NOREPLICAS": (
        ["CONFIG", "SET", "min-replicas-to-write", "1"],
        ["CONFIG", "SET", "min-replicas-to-write", "0"],
    ),
    "NOPERM": (["ACL", "SETUSER", "default", "-set"], ["ACL", "SETUSER", "default", "+set"]),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_server_that_rejects_commands_is_connected_and_accepts_them_later(link, own_redis, code):
    begin, end = REFUSALS[code]
    assert await link.run(WRITE, [], ["before"]) == b"OK"
    with own_redis.connect() as outside:
        outside.execute_command(*begin)
        for write in (link.send("SET", "word", "x"), link.send_all([("SET", "word", "x")])):
            with pytest.raises(StorageRefusedError, match=code):
                await write
        with pytest.raises(StorageRefusedError):
            await link.run(WRITE, [], ["x"])
        assert link.is_up
        assert await link.send("GET", "word") == b"before"
        outside.execute_command(*end)
    assert await link.run(WRITE, [], ["after"]) == b"OK"


async def test_a_server_with_a_busy_script_rejects_commands(link, own_redis):
    with own_redis.connect() as outside, own_redis.connect() as culprit:
        outside.config_set("lua-time-limit", 1)
        script = threading.Thread(target=run_endlessly, args=(culprit,))
        script.start()
        await until(lambda: not answers(outside))
        with pytest.raises(StorageRefusedError, match="BUSY"):
            await link.send("GET", "word")
        assert link.is_up
        outside.script_kill()
        script.join()
    assert await link.send("PING") == b"PONG"


def run_endlessly(client):
    with pytest.raises(redis.ResponseError, match="killed"):
        client.eval("while true do end", 0)


def answers(client):
    try:
        return client.ping()
    except redis.ResponseError:
        return False


async def test_each_kind_of_refusal_is_logged_once_a_minute(own_redis, caplog):
    clock = FakeClock()
    link = RedisLink(connect(RedisAddress(own_redis.url)), clock)
    with own_redis.connect() as outside:
        outside.config_set("maxmemory", 1)
    for pause in (0, 0, REMINDER_SECONDS):
        clock.jump(pause)
        with pytest.raises(StorageRefusedError):
            await link.send("SET", "word", "x")
        assert await link.send("GET", "word") is None
    await link.aclose()
    logged = [(record.message, record.levelno, record.code) for record in caplog.records]
    assert logged == [("redis_refuses", logging.ERROR, "OOM")] * 2


@pytest.mark.parametrize("mistake", ["return nil + 1", "return redis.call('RPUSH', 'word', 1)"])
async def test_an_error_in_a_script_is_not_an_outage(redis_link, mistake):
    await redis_link.send("SET", "word", "x")
    with pytest.raises(redis.ResponseError):
        await redis_link.run(Script(mistake), [])


async def test_a_server_that_requires_a_password_is_unavailable_until_it_does_not(link, own_redis):
    with own_redis.connect() as outside:
        outside.ping()
        outside.config_set("requirepass", "secret")
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
        assert not link.is_up
        outside.config_set("requirepass", "")
    await until(lambda: link.is_up)


async def test_the_probe_of_redis_does_not_inherit_a_requests_context(own_redis):
    request = ContextVar("request", default="none")
    seen = []

    async def revive():
        seen.append(request.get())

    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock(), revive)
    own_redis.kill()
    request.set("the one that missed it")
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    await until(lambda: seen)
    await link.aclose()
    assert set(seen) == {"none"}


async def test_the_printed_address_has_no_password():
    assert "secret" not in repr(RedisAddress("redis://:secret@localhost/0"))


async def test_an_empty_list_of_commands_takes_no_round_trip(redis_link):
    before = redis_link.round_trips
    assert await redis_link.send_all([]) == []
    assert redis_link.round_trips == before


async def test_a_command_that_cannot_be_encoded_fails_only_its_caller(redis_link):
    unsayable, other = await asyncio.gather(
        redis_link.send("ECHO", "\ud800"), redis_link.send("ECHO", "b"), return_exceptions=True
    )
    assert isinstance(unsayable, UnicodeEncodeError)
    assert other == b"b"


async def test_a_failing_round_trip_observer_does_not_block_callers(redis_server, caplog):
    def fail(_commands, _seconds):
        raise OSError("no space left")

    link = RedisLink(connect(RedisAddress(redis_server.url)), SystemClock(), observe=fail)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with asyncio.timeout(5):
        assert [await link.send("PING") for _ in range(5)] == [b"PONG"] * 5
    await link.aclose()


async def test_a_link_that_closes_while_redis_is_silent_leaves_no_task(own_redis):
    link = RedisLink(connect(RedisAddress(own_redis.url)), SystemClock())
    await link.send("PING")
    own_redis.freeze()
    asked = asyncio.create_task(link.send("PING"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await link.aclose()
    with pytest.raises(StorageUnavailableError):
        await asked
    own_redis.thaw()
    assert asyncio.all_tasks() == {asyncio.current_task()}
