"""The link to Redis: one round trip a tick, and honest when Redis is away."""

import asyncio
import time

import pytest

from src.resilience.clock import SystemClock
from src.services.errors import StorageUnavailableError
from src.storage.batching import BUDGET_SECONDS
from src.storage.client import RedisAddress, RedisLink, connect
from src.storage.scripts import Script
from tests.support.redis_server import RedisServer

ECHO = Script("echo", "return ARGV[1]")


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


async def test_one_refused_command_does_not_harm_its_neighbours(redis_link):
    await redis_link.send("SET", "word", "x")
    wrong, right = await asyncio.gather(
        redis_link.send("INCR", "word"), redis_link.send("GET", "word"), return_exceptions=True
    )
    assert "not an integer" in str(wrong)
    assert right == b"x"


async def test_a_flushed_script_is_taught_again(redis_link, redis_server):
    assert await redis_link.run(ECHO, [], ["a"]) == b"a"
    with redis_server.connect() as client:
        client.script_flush()
    assert await redis_link.run(ECHO, [], ["b"]) == b"b"


async def test_a_cancelled_caller_takes_nobody_with_it(redis_link):
    leaver = asyncio.create_task(redis_link.send("ECHO", "a"))
    stayer = asyncio.create_task(redis_link.send("ECHO", "b"))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == b"b"


async def test_a_killed_server_is_said_to_be_away_at_once_and_found_again(link, own_redis):
    await link.send("SET", "kept", "1")
    own_redis.kill()
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    assert not link.is_up
    round_trips = link.round_trips
    for _ in range(100):
        with pytest.raises(StorageUnavailableError):
            await link.send("PING")
    assert link.round_trips - round_trips <= 2  # the probe's, not the callers'
    own_redis.start()
    await until(lambda: link.is_up)
    assert await link.send("GET", "kept") == b"1"


async def test_a_frozen_server_costs_one_timeout_for_everybody(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    calls = [link.send("PING") for _ in range(200)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, StorageUnavailableError) for result in results)
    own_redis.thaw()
    await until(lambda: link.is_up)
    assert await link.send("PING") == b"PONG"


async def test_while_a_long_run_keeps_redis_busy_it_is_not_taken_to_be_away(link):
    busy = Script("busy", "local n = 0 while n < tonumber(ARGV[1]) do n = n + 1 end return n")
    long_run = asyncio.create_task(link.run(busy, [], [15_000_000], timeout_seconds=30))
    await asyncio.sleep(0.05)
    with pytest.raises(StorageUnavailableError):
        await link.send("PING")
    assert link.is_up
    assert await long_run == 15_000_000
    assert await link.send("PING") == b"PONG"


async def test_a_hurried_caller_gives_up_early_and_leaves_the_round_trip_to_the_others(link, own_redis):
    await link.send("PING")
    own_redis.freeze()
    patient = asyncio.create_task(link.send("ECHO", "patient"))
    with pytest.raises(StorageUnavailableError, match="budget"):
        await link.run(ECHO, [], ["hurried"], hurried=True)
    assert link.is_up
    own_redis.thaw()
    assert await patient == b"patient"


async def test_a_loop_that_is_late_itself_does_not_blame_redis(redis_link):
    hurried = asyncio.create_task(redis_link.run(ECHO, [], ["x"], hurried=True))
    for _ in range(4):
        await asyncio.sleep(0)
        time.sleep(BUDGET_SECONDS)  # the answer lies unread meanwhile
    assert await hurried == b"x"


async def test_the_address_keeps_its_password_to_itself():
    assert "secret" not in repr(RedisAddress("redis://:secret@localhost/0"))
