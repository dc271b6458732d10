"""The library's stores over clients of redis-py: cases beyond the contract suites."""

import asyncio
import subprocess
import sys
import time

import pytest
import redis
from redis.asyncio import Sentinel, from_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

import src.resilience.redis as redis_package
from src.resilience import (
    CacheOptions,
    CircuitBreaker,
    CircuitBreakerOptions,
    MemoryBreakerStore,
    Quota,
    StoreUnavailableError,
    SystemClock,
)
from src.resilience.circuit_breaker import FailoverBreakerStore
from src.resilience.errors import StoreRefusedError
from src.resilience.events import OutcomeLost
from src.resilience.redis import (
    ClientRunner,
    FailoverRateLimiter,
    RedisBreakerStore,
    RedisCacheStore,
    RedisRateLimiter,
)
from src.resilience.redis.scripts import COMMAND
from src.storage.redis.embedded.server_binary import find_redis_server
from tests.support.redis_cluster import free_ports

ONCE = Retry(NoBackoff(), 0)
OPTIONS = CircuitBreakerOptions(failure_threshold=1)


class UpstreamError(Exception):
    pass


@pytest.fixture
async def client(redis_server):
    async with from_url(redis_server.url) as client:
        yield client


def breaker_over(client, listener=lambda _event: None):
    return CircuitBreaker("upstream", RedisBreakerStore(client), OPTIONS, SystemClock(), listener=listener)


async def test_two_processes_share_a_breaker(redis_server):
    async with from_url(redis_server.url) as ours, from_url(redis_server.url) as theirs:
        await breaker_over(ours).force_open()
        assert (await breaker_over(theirs).status()).state == "OPEN"


async def test_exactly_the_quota_of_a_hundred_concurrent_hits_is_allowed(client):
    limiters = [
        RedisRateLimiter("sliding_window_log", Quota(10, 3600), client, SystemClock()) for _ in range(2)
    ]
    decisions = await asyncio.gather(*(limiters[number % 2].hit("k") for number in range(100)))
    assert sum(decision.allowed for decision in decisions) == 10


@pytest.mark.parametrize("options", [{"protocol": 3}, {"protocol": 3, "decode_responses": True}], ids=str)
async def test_replies_are_the_same_by_either_protocol(redis_server, options):
    async with from_url(redis_server.url, **options) as client:
        await breaker_over(client).force_open()
        status = await breaker_over(client).status()
    assert (status.state, status.transitions[0].reason) == ("OPEN", "forced open")


async def test_a_server_that_does_not_have_the_script_gets_its_source(client):
    limiter = RedisRateLimiter("fixed_window", Quota(2, 60), client, SystemClock())
    await limiter.hit("k")
    await client.script_flush()
    assert (await limiter.hit("k")).remaining == 0


async def test_a_client_that_is_not_asynchronous_is_rejected():
    with pytest.raises(TypeError, match=r"redis\.asyncio or a ScriptRunner, not redis\.client\.Redis"):
        RedisBreakerStore(redis.Redis())


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
async def test_a_run_has_a_timeout(client, seconds):
    with pytest.raises(ValueError, match="timeout_seconds must be above 0"):
        ClientRunner(client, timeout_seconds=seconds)


async def test_an_outage_during_a_call_does_not_change_its_result(own_redis, listener):
    async def answer():
        own_redis.kill()
        return "answer"

    async def fail_too():
        own_redis.kill()
        raise UpstreamError

    async with from_url(own_redis.url, retry=ONCE) as client:
        breaker = breaker_over(client, listener)
        assert await breaker.run(answer) == "answer"
        own_redis.start()
        with pytest.raises(UpstreamError):
            await breaker.run(fail_too)
    assert [type(event.error) for event in listener.of(OutcomeLost)] == [StoreUnavailableError] * 2


async def test_after_a_frozen_redis_each_call_gets_its_own_reply(own_redis):
    async with from_url(own_redis.url) as client:
        runner = ClientRunner(client, timeout_seconds=0.1)
        for value in ("one", "two"):
            await runner.run(COMMAND, [value], ["SET", value])
        own_redis.freeze()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await runner.run(COMMAND, ["one"], ["GET"])
        assert time.monotonic() - began < 5
        own_redis.thaw()
        assert await ClientRunner(client, timeout_seconds=10).run(COMMAND, ["two"], ["GET"]) == b"two"


async def test_while_redis_is_unavailable_the_local_store_decides(own_redis, clock):
    async with from_url(own_redis.url, retry=ONCE) as client:
        store = FailoverBreakerStore(RedisBreakerStore(client), MemoryBreakerStore(clock))
        breaker = CircuitBreaker("upstream", store, OPTIONS, clock)
        own_redis.kill()
        await breaker.force_open()
        own_redis.start()
        assert (await breaker.status()).state == "CLOSED", "the shared store decides again"


async def test_while_redis_is_unavailable_the_quota_is_the_share_of_the_worker(own_redis, clock, caplog):
    async with from_url(own_redis.url, retry=ONCE) as client:
        shared = RedisRateLimiter("fixed_window", Quota(4, 60), client, clock)
        limiter = FailoverRateLimiter(shared, clock, workers=2)
        assert [(await limiter.hit("k")).remaining for _ in range(2)] == [3, 2]
        own_redis.kill()
        assert [(await limiter.hit("k")).allowed for _ in range(3)] == [True, True, False]
        own_redis.start()
        assert (await limiter.hit("k")).remaining == 1, "the shared count goes on"
    assert [record.message for record in caplog.records if record.message.startswith("limiter_")] == [
        "limiter_local",
        "limiter_shared_again",
    ]


async def test_a_rejection_by_redis_differs_from_a_programming_error(own_redis):
    async with from_url(own_redis.url) as client:
        limiter = RedisRateLimiter("fixed_window", Quota(2, 60), client, SystemClock())
        await client.zadd("{fixed_window:foreign}", {"member": 1})
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await limiter.hit("foreign")
        await client.config_set("maxmemory", 1)
        with pytest.raises(StoreRefusedError, match=r"Redis refuses: .*OOM"):
            await limiter.hit("k")


async def test_the_reason_of_failed_runs_is_logged_once_a_minute(own_redis, clock, caplog):
    async with from_url(own_redis.url, retry=ONCE) as client:
        store = RedisCacheStore(ClientRunner(client, clock))
        own_redis.kill()
        for _ in range(3):
            assert await store.read_last_good("k", CacheOptions()) is None
        assert [record.message for record in caplog.records] == ["redis_store_fails"]
        assert caplog.records[0].code == "NO_SOCKET"
        clock.jump(60)
        await store.read_last_good("k", CacheOptions())
        assert len(caplog.records) == 2


async def test_a_replica_counts_as_unavailable(start_redis):
    port = f"{free_ports(1)[0]}"
    start_redis("--bind", "127.0.0.1", "--port", port)
    replica = start_redis("--replicaof", "127.0.0.1", port)
    async with from_url(replica.url) as client:
        with pytest.raises(StoreUnavailableError, match="READONLY"):
            await RedisRateLimiter("fixed_window", Quota(2, 60), client, SystemClock()).hit("k")


async def test_unawaited_reads_of_the_cache_leave_no_task(client):
    store = RedisCacheStore(client)
    store.read("k", None)
    assert len(store._background) == 1
    async with asyncio.timeout(10):
        while store._background:
            await asyncio.sleep(0)


# ---------------------------------------------------------------- Sentinel


@pytest.fixture
def sentinel(start_redis, tmp_path):
    """Run a primary, its replica, and a Sentinel for both."""
    ports = free_ports(3)
    servers = [
        start_redis("--bind", "127.0.0.1", "--port", str(ports[0])),
        start_redis(
            "--bind", "127.0.0.1", "--port", str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0])
        ),
    ]
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"bind 127.0.0.1\nport {ports[2]}\ndir {tmp_path}\nlogfile {tmp_path / 'sentinel.log'}\n"
        f"sentinel monitor main 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
    )
    with servers[1].connect() as replica:
        until(lambda: replica.info("replication")["master_link_status"] == "up")
    process = subprocess.Popen(
        [find_redis_server(), configuration, "--sentinel"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with redis.Redis(port=ports[2], decode_responses=True) as watcher:
            until(lambda: len(watcher.execute_command("SENTINEL", "REPLICAS", "main")) == 1)
        yield Sentinel([("127.0.0.1", ports[2])]), servers[0]
    finally:
        process.kill()
        process.wait()


def until(is_true, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if is_true():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
async def test_after_a_failover_the_store_finds_the_new_primary(sentinel):
    sentinel, primary = sentinel
    async with sentinel.master_for("main", retry=ONCE) as client:
        limiter = RedisRateLimiter("fixed_window", Quota(100, 3600), client, SystemClock())
        assert (await limiter.hit("k")).remaining == 99
        assert await client.execute_command("WAIT", 1, 5000) == 1
        primary.kill()
        with pytest.raises(StoreUnavailableError):
            await limiter.hit("k")
        async with asyncio.timeout(30):
            while True:
                try:
                    decision = await limiter.hit("k")
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
                else:
                    break
        assert decision.remaining == 98, "the replica had the first hit"
    await asyncio.gather(*(each.aclose() for each in sentinel.sentinels))


# ---------------------------------------------------------------- how the package is imported


@pytest.mark.parametrize("first", ["redis", "cache.redis", "circuit_breaker.redis"])
def test_every_name_can_be_imported_in_any_order(first):
    program = (
        f"import src.resilience.{first}\nfrom src.resilience.redis import {', '.join(redis_package.__all__)}"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(ImportError, match="RedisBulkhead"):
        from src.resilience.redis import RedisBulkhead  # noqa: F401
