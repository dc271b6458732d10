"""An address that leads to another server: the link connects to the new server, at a limited rate."""

import asyncio

import pytest
import redis

from src.resilience.clock import SystemClock
from src.resilience.redis.scripts import Script
from src.services.errors import StorageRefusedError
from src.storage.redis.batcher import MAX_DEDICATED, MAX_IN_FLIGHT
from src.storage.redis.link import RECONNECT_INTERVAL_SECONDS, RedisAddress, RedisLink, connect
from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.clock import FakeClock
from tests.support.relay import running_relay

WRITE = Script("return redis.call('SET', 'word', ARGV[1])")


@pytest.fixture
async def relay(start_redis):
    async with running_relay(start_redis().socket) as relay:
        yield relay


@pytest.fixture
async def link(relay):
    """Yield a link with two connections to the server behind the relay."""
    link = RedisLink(connect(RedisAddress(relay.url)), SystemClock())
    await asyncio.gather(link.send("SET", "word", "old"), link.run(WRITE, [], ["old"], timeout_seconds=1))
    yield link
    await link.aclose()


@pytest.fixture
def fail_over(relay, start_redis):
    """Make the relay's server a replica, move the relay to a new primary, and return the new primary."""

    def fail_over():
        with redis.Redis.from_url(f"unix://{relay.target}") as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        new = start_redis()
        relay.target = new.socket
        return new

    return fail_over


async def test_after_a_failover_writes_reach_the_new_primary_over_live_connections(link, fail_over):
    new = fail_over()
    with pytest.raises(StorageRefusedError, match="READONLY"):
        await link.run(WRITE, [], ["lost"])
    assert link.is_up
    results = await asyncio.gather(
        link.send("SET", "word", "new"), *(link.run(WRITE, [], ["new"], timeout_seconds=1) for _ in range(4))
    )
    assert results == [b"OK"] * 5
    with new.connect() as client:
        assert client.get("word") == "new"


async def test_a_running_round_trip_ends_on_its_own_connection(link, fail_over):
    fail_over()
    long = asyncio.create_task(
        link.run(Script("for _ = 1, 3000000 do end return redis.call('GET', 'word')"), [], timeout_seconds=9)
    )
    await asyncio.sleep(0.01)
    with pytest.raises(StorageRefusedError, match="READONLY"):
        await link.send("SET", "word", "lost")
    assert await long == b"old"
    assert await link.run(Script("return redis.call('GET', 'word')"), [], timeout_seconds=9) is None


async def test_a_server_that_stays_a_replica_is_connected_to_again_once_a_second_at_most(relay, fail_over):
    replica = relay.target
    fail_over()
    relay.target = replica
    clock = FakeClock()
    link = RedisLink(connect(RedisAddress(relay.url)), clock)
    most = 0
    for _ in range(3):
        most += 2 * (MAX_IN_FLIGHT + MAX_DEDICATED)
        for _ in range(50):
            writes = [link.run(WRITE, [], ["x"]), link.run(WRITE, [], ["x"], timeout_seconds=1)]
            refusals = await asyncio.gather(*writes, return_exceptions=True)
            assert all(isinstance(refusal, StorageRefusedError) for refusal in refusals)
            assert await link.send("GET", "word") is None
        assert relay.opened <= most
        clock.jump(RECONNECT_INTERVAL_SECONDS)
    await link.aclose()


async def test_the_api_stores_again_soon_after_a_failover(relay, fail_over):
    async def write():
        single = api.post("/api/metrics", json=metric())
        batch = api.post("/api/metrics/batch", json=[metric(kind=f"type{n}") for n in range(300)])
        return sorted(answer.status_code for answer in await asyncio.gather(single, batch))

    async with running_api(relay.url, **PLENTY, **CALM) as api:
        assert await write() == [201, 201]
        fail_over()
        async with asyncio.timeout(5):
            while (statuses := await write()) != [201, 201]:
                assert 503 in statuses
                await asyncio.sleep(0.02)
        assert [await write() for _ in range(10)] == [[201, 201]] * 10


async def test_a_replica_without_its_primary_is_left_as_well(relay, link, fail_over):
    with redis.Redis.from_url(f"unix://{relay.target}") as client:
        client.config_set("replica-serve-stale-data", "no")
    fail_over()
    with pytest.raises(StorageRefusedError, match="MASTERDOWN"):
        await link.send("GET", "word")
    assert await link.send("GET", "word") is None
