"""One suite, every store: each contract runs against memory, fakeredis and a real redis-server."""

from dataclasses import dataclass

import pytest

from src.storage.client import RedisLink
from tests.support.clock import FakeClock

TEST_TIME = """
local function now_us()
  return tonumber(redis.call('GET', 'test:now_us'))
end
"""
"""The time source of scripts under test: `StoreTime` writes what it reads."""


@dataclass
class StoreTime:
    """Moves the time a store goes by: a fake clock, and what `TEST_TIME` reads where there is a link."""

    clock: FakeClock
    link: RedisLink | None

    async def advance(self, seconds: float) -> None:
        self.clock.jump(seconds)
        await self.publish()

    async def publish(self) -> None:
        if self.link is not None:
            await self.link.send("SET", "test:now_us", round(self.clock.now() * 1e6))


@pytest.fixture(params=["memory", "fakeredis", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def store_time(backend: str, request: pytest.FixtureRequest, clock: FakeClock) -> StoreTime:
    """The time of the store under test; `.link` is the link to it, None for memory."""
    fixture = {"memory": None, "fakeredis": "fake_link", "redis": "redis_link"}[backend]
    link = None if fixture is None else request.getfixturevalue(fixture)
    time = StoreTime(clock, link)
    await time.publish()
    return time
