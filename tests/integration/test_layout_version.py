"""A Redis with metrics in another layout is neither read nor written."""

import pytest

from src.resilience.clock import SystemClock
from src.storage.metrics.layout_version import (
    LAYOUT_VERSION,
    VERSION_KEY,
    OtherLayoutError,
    check_layout,
)
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.server import Server

STARTUP_FAILURE = 3


@pytest.fixture(params=["fake_link", "redis_link"])
def link(request) -> RedisLink:
    return request.getfixturevalue(request.param)


async def write_layout_1(link, metric_type="cpu"):
    """Store the keys of one point in the first layout."""
    prefix = f"m:{{{metric_type}}}:"
    await link.send("ZADD", "types", 1_769_860_800_000_000, metric_type)
    await link.send("INCRBY", prefix + "seq", 1)
    await link.send("HSET", prefix + "all", "all", "1 1 0 1 1 1769860800000000 1 1")
    await link.send("ZADD", prefix + "hours", 491628, 491628)
    await link.send("ZADD", prefix + "raw:491628", 0, b"\0\0\0\0\0\1\x3f\xf0\0\0\0\0\0\0")


async def keys(link) -> set[bytes]:
    return set(await link.send("KEYS", "*"))


async def check(link):
    await check_layout(link._batcher.add)


async def test_an_empty_database_gets_the_version(link):
    await check(link)
    await check(link)

    assert await link.send("GET", VERSION_KEY) == LAYOUT_VERSION.encode()


async def test_metrics_in_the_current_layout_without_a_version_get_the_version(link):
    for number in range(1_100):
        await link.send("ZADD", "types", number, f"t{number}")
    await link.send("HSET", "m:{t1}:d", "all", b"\0" * 56)

    await check(link)

    assert await link.send("GET", VERSION_KEY) == LAYOUT_VERSION.encode()


@pytest.mark.parametrize("others", [0, 1_100])
async def test_metrics_in_the_first_layout_are_recognised_by_their_keys(link, others):
    for number in range(others):
        await link.send("ZADD", "types", number, f"t{number}")
    await write_layout_1(link)
    before = await keys(link)

    with pytest.raises(OtherLayoutError, match=r"layout 1, and this version reads layout 2.*export.*import"):
        await check(link)
    assert await keys(link) == before


@pytest.mark.parametrize("version", ["1", "3", "", "é"])
async def test_another_version_is_reported(link, version):
    await link.send("SET", VERSION_KEY, version)

    with pytest.raises(OtherLayoutError, match=f"layout {version}, and"):
        await check(link)


async def test_a_foreign_value_as_the_version_is_ignored(link):
    await link.send("RPUSH", VERSION_KEY, "x")

    await check(link)


async def test_a_user_without_permission_to_read_the_version_can_serve(start_redis):
    redis = start_redis()
    with redis.connect() as client:
        client.execute_command("ACL", "SETUSER", "default", "-get", "-zrange")
    link = RedisLink(connect(RedisAddress(redis.url)), SystemClock(), check=check_layout)

    await link.check()

    assert link.is_up
    await link.aclose()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_service_refuses_to_start_on_another_layout(redis_link, redis_server, tmp_path, workers):
    await write_layout_1(redis_link)
    before = await keys(redis_link)

    server = Server(redis_server.url, tmp_path, workers=workers, command=("src",))

    assert await server.end() == STARTUP_FAILURE
    log = server.log.read_text("utf-8")
    assert "Traceback" not in log
    reasons = [line for line in log.splitlines() if "export" in line and "import" in line]
    assert 1 <= len(reasons) <= workers
    assert await keys(redis_link) == before


async def test_a_running_service_neither_reads_nor_writes_another_layout(own_redis):
    async with running_api(own_redis.url, **PLENTY, **CALM) as api:
        assert (await api.post("/api/metrics", json=metric())).status_code == 201
        own_redis.kill()
        assert (await api.post("/api/metrics", json=metric())).status_code == 503
        own_redis.start()
        with own_redis.connect() as client:
            # The API may have connected before this, and lose Redis again.
            client.set(VERSION_KEY, "3")
            own_redis.kill()
            await api.post("/api/metrics", json=metric())
            own_redis.start()
        with own_redis.connect() as client:
            before = set(client.keys())
            for _ in range(5):
                await SystemClock().sleep(0.3)
                assert (await api.post("/api/metrics", json=metric())).status_code == 503
            assert set(client.keys()) == before
            client.set(VERSION_KEY, LAYOUT_VERSION)
        for _ in range(50):
            if (await api.post("/api/metrics", json=metric())).status_code == 201:
                return
            await SystemClock().sleep(0.1)
    pytest.fail("Redis is not used again")
