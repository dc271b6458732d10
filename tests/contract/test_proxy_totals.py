"""The proxy's totals in Redis, on fakeredis and on a real server."""

import pytest

from src.services.errors import StorageUnavailableError
from src.services.proxy.totals import ProxyTotals
from src.storage.fleet.proxy_totals import RedisProxyTotals


@pytest.fixture(params=["fakeredis", "redis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_adding_returns_the_sum_of_all_in_one_round_trip(link):
    one, other = RedisProxyTotals(link), RedisProxyTotals(link)
    assert await one.add(ProxyTotals()) == ProxyTotals()
    before = link.round_trips
    assert await one.add(ProxyTotals(requests=2, latency_us=5)) == ProxyTotals(requests=2, latency_us=5)
    assert await other.add(ProxyTotals(requests=1, failures=1)) == ProxyTotals(3, 0, 1, 0, 0, 5)
    assert link.round_trips == before + 2


async def test_a_foreign_value_under_the_key_makes_the_totals_unavailable(link):
    await link.send("SET", "proxy:totals", "mine")
    with pytest.raises(StorageUnavailableError):
        await RedisProxyTotals(link).add(ProxyTotals(requests=1))
