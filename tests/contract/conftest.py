"""One suite, every store: each contract runs against memory, fakeredis and a real redis-server."""

from dataclasses import dataclass

import pytest

from src.storage.redis.link import RedisLink
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

    async def shift(self, seconds: float) -> None:
        """Set the store's clock forward, or back where `seconds` is negative, while no time passes."""
        self.clock.shift_time_of_day(seconds)
        await self.publish()

    async def publish(self) -> None:
        if self.link is not None:
            await self.link.send("SET", "test:now_us", round(self.clock.now() * 1e6))


@pytest.fixture(params=["memory", "fakeredis", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def link(backend: str, request: pytest.FixtureRequest) -> RedisLink | None:
    """The link to the store under test, None for memory."""
    fixture = {"memory": None, "fakeredis": "fake_link", "redis": "redis_link"}[backend]
    return None if fixture is None else request.getfixturevalue(fixture)


@pytest.fixture
async def store_time(link: RedisLink | None, clock: FakeClock) -> StoreTime:
    """The time of the store under test."""
    time = StoreTime(clock, link)
    await time.publish()
    return time
