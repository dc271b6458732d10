"""A cache store over `RedisLink`: the reads of one tick of the event loop share one round trip.

If a lease cannot be released while Redis is unavailable, it is released as soon as Redis answers again.
"""

import asyncio
from collections.abc import Awaitable
from functools import partial
from itertools import chain

from src.resilience.cache.options import CacheOptions
from src.resilience.cache.recent_entries import RecentEntries
from src.resilience.cache.redis import RedisCacheStore, cost_key, unless_unavailable
from src.resilience.cache.store import Entry, Lease
from src.storage.redis.link import RedisLink


class BatchedCacheStore(RedisCacheStore):
    """A `RedisCacheStore` that batches its reads.

    Args:
        link: The connection to Redis.
        recent: Keeps the entries that were read, and serves them while Redis is unavailable. None keeps
            nothing.
        answers_early: Whether a recent entry is also served when Redis has not replied for about 10 ms.
            During such a silence, an entry may be served after another worker has invalidated it.
    """

    def __init__(
        self, link: RedisLink, recent: RecentEntries | None = None, *, answers_early: bool = False
    ) -> None:
        super().__init__(link, recent)
        self._link = link
        self._reads = link.tick_loader(self._read_all)
        if recent is not None and answers_early:
            link.on_silence(partial(self._reads.resolve, lambda read: recent.get(read[0])))
        self._lease_tokens: set[str] = set()  # of the leases that this worker may hold

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry under `key`, if there is one."""
        return self._reads.add((key, options))

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step which worker computes."""
        was_up = self._link.is_up
        reply = await super().take_lease(key, token, begun_within_seconds, options)
        if reply is Lease.TAKEN and was_up:  # Redis may have granted the lease even if its answer was lost
            self._lease_tokens.add(token)
        return reply

    async def _read_all(self, reads: list[tuple[str, CacheOptions]]) -> list[Entry | None]:
        options = dict(reads)
        values = ("MGET", *chain.from_iterable((key, cost_key(key)) for key in options))
        lifetimes = [("PTTL", key) for key in options]
        sending = self._link.send_all([values, *lifetimes], short_deadline=self._recent is not None)
        replies = await unless_unavailable(sending, None)
        if replies is None:
            return [self._recent_entry(key) for key, _ in reads]
        columns = zip(options, replies[0][::2], replies[0][1::2], replies[1:], strict=True)
        entries = {key: self._fresh_entry(key, options[key], *values) for key, *values in columns}
        return [entries[key] for key, _ in reads]

    def _end_lease(self, key: str, token: str, *, is_ended: bool) -> None:
        """If Redis could not end a lease, release it as soon as Redis answers: other workers wait for it."""
        if token in self._lease_tokens and not is_ended:
            self._keep_reference(asyncio.create_task(self._wait_and_release(key, token)))
        self._lease_tokens.discard(token)

    async def _wait_and_release(self, key: str, token: str) -> None:
        await self._link.until_up()
        await self._release(key, token)  # if this fails too, the lease expires
