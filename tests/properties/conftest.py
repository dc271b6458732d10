"""Each machine runs on every store: in memory, on fakeredis and on a real redis-server with its own Lua."""

import pytest

from src.storage.redis.link import RedisAddress, connect, connect_in_process
from tests.support.machines import MakeClient


@pytest.fixture(params=["memory", "fakeredis", "redis"])
def make_client(request: pytest.FixtureRequest) -> MakeClient | None:
    """Return a function that creates a client of the Redis under test; None for memory."""
    if request.param == "memory":
        return None
    if request.param == "fakeredis":
        return connect_in_process
    server = request.getfixturevalue("redis_server")
    return lambda: connect(RedisAddress(server.url))
