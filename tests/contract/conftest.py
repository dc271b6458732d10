"""The stores of the contract suites: each contract runs in memory, on fakeredis and on a real redis-server.

The stores of the library's patterns run also through clients of redis-py: of one server, and of a cluster.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import redis.asyncio

from src.resilience.clock import SystemClock
from src.resilience.redis.client_runner import ClientRunner
from src.storage.redis.link import RedisAddress, RedisLink, connect, connect_in_process
from tests.support.clock import FakeClock
from tests.support.redis_cluster import CLUSTER_TIME, TIME_KEYS, ClientAccess, RedisCluster
from tests.support.redis_server import RedisServer

Advance = Callable[[float], Awaitable[None]]
"""Moves the time of a store by a number of seconds."""

TEST_TIME = """
local function now_us()
  return tonumber(redis.call('GET', 'test:now_us'))
end
"""
"""The time source of scripts under test: `StoreTime` writes what it reads."""


TIMEOUT_SECONDS = 30.0
"""The timeout of each command, so that a slow machine fails no contract."""


class PatientClock(SystemClock):
    """The clock of the machine, with timeouts that a slow machine keeps."""

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Return a timeout of at least `TIMEOUT_SECONDS`."""
        return super().timeout(None if seconds is None else max(seconds, TIMEOUT_SECONDS))


@dataclass
class StoreTime:
    """Moves the time of a store: a fake clock, and with Redis also the time source of the scripts."""

    clock: FakeClock
    link: RedisLink | ClientAccess | None

    @property
    def redis(self):
        """The argument `redis` of a store of the library."""
        if isinstance(self.link, ClientAccess):
            return ClientRunner(self.link.client, timeout_seconds=TIMEOUT_SECONDS)
        return self.link

    @property
    def source(self) -> str:
        """The time source of scripts under test."""
        return CLUSTER_TIME if self._is_cluster else TEST_TIME

    @property
    def _is_cluster(self) -> bool:
        return isinstance(self.link, ClientAccess) and self.link.is_cluster

    async def advance(self, seconds: float) -> None:
        self.clock.jump(seconds)
        await self.publish()

    async def shift(self, seconds: float) -> None:
        """Set the store's clock forward, or back if `seconds` is negative. The monotonic time stays."""
        self.clock.shift_time_of_day(seconds)
        await self.publish()

    async def publish(self) -> None:
        if self.link is not None:
            for key in TIME_KEYS if self._is_cluster else ["test:now_us"]:
                await self.link.send("SET", key, round(self.clock.now() * 1e6))


@pytest.fixture(params=["memory", "fakeredis", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


LIBRARY_BACKENDS = ["memory", "fakeredis", "redis", "client", "cluster"]
"""The backends of a store that is a part of the library."""


@pytest.fixture
async def redis_link(redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    """A link to the real redis-server."""
    link = RedisLink(connect(RedisAddress(redis_server.url)), PatientClock())
    yield link
    await link.aclose()


@pytest.fixture
async def fake_link() -> AsyncIterator[RedisLink]:
    """A link to fakeredis."""
    link = RedisLink(connect_in_process(), PatientClock())
    yield link
    await link.aclose()


@pytest.fixture
def link(backend: str, request: pytest.FixtureRequest) -> RedisLink | ClientAccess | None:
    """The link to the store under test, None for memory."""
    fixtures = {
        "fakeredis": "fake_link",
        "redis": "redis_link",
        "client": "client_access",
        "cluster": "cluster_access",
    }
    return None if backend == "memory" else request.getfixturevalue(fixtures[backend])


async def end_of_background() -> None:
    """Wait for background tasks of stores, which would otherwise connect after the client is closed."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=5)


@pytest.fixture
async def client_access(redis_server: RedisServer) -> AsyncIterator[ClientAccess]:
    """Return access by a client of redis-py that decodes replies, a common configuration."""
    async with redis.asyncio.from_url(redis_server.url, decode_responses=True) as client:
        yield ClientAccess(client)
        await end_of_background()


@pytest.fixture
async def cluster_access(shared_cluster: RedisCluster) -> AsyncIterator[ClientAccess]:
    """A client of an empty cluster of three nodes."""
    shared_cluster.flush()
    async with shared_cluster.client() as client:
        yield ClientAccess(client)
        await end_of_background()


@pytest.fixture
def advance(link: RedisLink | ClientAccess | None, clock: FakeClock) -> Advance:
    """Moves the time of a cache store. In Redis all goes by expiry, so every expiry is brought nearer."""

    async def age(seconds: float) -> None:
        clock.jump(seconds)
        for key in await link.send("KEYS", "*") if link is not None else ():
            remaining_ms = await link.send("PTTL", key)
            await link.send("PEXPIRE", key, remaining_ms - round(seconds * 1000))  # in the past: deletes

    return age


@pytest.fixture
async def store_time(link: RedisLink | None, clock: FakeClock) -> StoreTime:
    """The time of the store under test."""
    time = StoreTime(clock, link)
    await time.publish()
    return time
