"""One machine, every store: memory, fakeredis and a real redis-server, whose Lua is not fakeredis'."""

import pytest

from src.storage.redis.link import RedisAddress, connect, connect_in_process
from tests.support.machines import MakeClient


@pytest.fixture(params=["memory", "fakeredis", "redis"])
def make_client(request: pytest.FixtureRequest) -> MakeClient | None:
    """Makes a client of the Redis under test; None where it is memory."""
    if request.param == "memory":
        return None
    if request.param == "fakeredis":
        return connect_in_process
    server = request.getfixturevalue("redis_server")
    return lambda: connect(RedisAddress(server.url))
