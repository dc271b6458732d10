"""The proxy's totals over all workers, as counters in one hash."""

from dataclasses import astuple, fields

from redis.exceptions import RedisError

from src.services.errors import StorageUnavailableError
from src.services.proxy.totals import ProxyTotals
from src.storage.redis.link import RedisLink

_KEY = "proxy:totals"
_FIELDS = [field.name for field in fields(ProxyTotals)]


class RedisProxyTotals:
    """A `ProxyTotalsStore` in Redis.

    Args:
        link: The connection to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def add(self, totals: ProxyTotals) -> ProxyTotals:
        """Add `totals` to those of all workers, and return the sum, in one round trip."""
        added = zip(_FIELDS, astuple(totals), strict=True)
        try:
            return ProxyTotals(
                *await self._link.send_all([("HINCRBY", _KEY, name, amount) for name, amount in added])
            )
        except RedisError as error:  # the key holds another program's value
            raise StorageUnavailableError(str(error)) from error
