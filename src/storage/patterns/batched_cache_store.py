"""The cache's store on the link: the reads of one tick of the event loop share one round trip.

A lease that could not be given back while Redis was unavailable is given back as soon as Redis answers.
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
        recent: Keeps the entries that were read, for while Redis is unavailable; None keeps nothing.
        answers_early: Whether a recent entry is served as soon as Redis has been silent for some 10 ms, and
            not only when it is unavailable. During a silence an entry may be served that another worker has
            invalidated.
    """

    def __init__(
        self, link: RedisLink, recent: RecentEntries | None = None, *, answers_early: bool = False
    ) -> None:
        super().__init__(link, recent)
        self._link = link
        self._reads = link.tick_loader(self._read_all)
        if recent is not None and answers_early:
            link.on_silence(partial(self._reads.resolve, lambda read: recent.get(read[0])))
        self._tokens: set[str] = set()  # of leases that this worker holds, as far as it knows

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one; all reads of one tick share one round trip."""
        return self._reads.add((key, options))

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step who computes."""
        was_up = self._link.is_up
        taken = await super().take_lease(key, token, begun_within_seconds, options)
        if taken is Lease.TAKEN and was_up:  # Redis may have given the lease, though no answer came
            self._tokens.add(token)
        return taken

    async def _read_all(self, reads: list[tuple[str, CacheOptions]]) -> list[Entry | None]:
        options = dict(reads)
        values = ("MGET", *chain.from_iterable((key, cost_key(key)) for key in options))
        lifetimes = [("PTTL", key) for key in options]
        sent = self._link.send_all([values, *lifetimes], short_deadline=self._recent is not None)
        replies = await unless_unavailable(sent, None)
        if replies is None:
            return [self._recent_entry(key) for key, _ in reads]
        columns = zip(options, replies[0][::2], replies[0][1::2], replies[1:], strict=True)
        found = {key: self._fresh_entry(key, options[key], *values) for key, *values in columns}
        return [found[key] for key, _ in reads]

    def _end_lease(self, key: str, token: str, *, is_ended: bool) -> None:
        """Release a lease that Redis could not end as soon as Redis answers, so that nobody waits for it."""
        if token in self._tokens and not is_ended:
            self._keep(asyncio.create_task(self._wait_and_release(key, token)))
        self._tokens.discard(token)

    async def _wait_and_release(self, key: str, token: str) -> None:
        await self._link.until_up()
        await self._release(key, token)  # if that fails too, the lease runs out
