"""The totals of the proxy over all workers: the counters of one hash in Redis."""

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
        """Add `totals` to those of all workers, and return the sums. This takes one round trip.

        Raises:
            StorageUnavailableError: Redis is unavailable, or another program uses the key.
        """
        amounts = zip(_FIELDS, astuple(totals), strict=True)
        try:
            return ProxyTotals(
                *await self._link.send_all([("HINCRBY", _KEY, name, amount) for name, amount in amounts])
            )
        except RedisError as error:  # another program has stored a value under the key
            raise StorageUnavailableError(str(error)) from error
