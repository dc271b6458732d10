"""The cache's store in Redis.

An entry is a plain string under the caller's own key, with an expiry of exactly its ttl: `GET` shows the
answer, `TTL` how long it is fresh, and `DEL` makes the next reader compute. Beside `k` there are
`{k}:cost` (how long the computation took, in milliseconds), `{k}:last-good` (the answer again, for when there
is no entry) and `{k}:lease` (the token of whoever computes now). The braces make a hash tag, so that all four
share a slot, and a key must therefore hold no braces of its own. That would do for the scripts on a Redis
Cluster; what is read in one tick, like a write of metrics, spans slots (docs/adr/0003). Everything runs out
by Redis' own expiry, hence by Redis' clock, and ages are read off what remains: the entry's age off its ttl,
what its computation cost off the lease.

After Redis' clock is set back, an entry that was stored before is a miss, and a lease that was given before
has ended: nothing says how old the one is, or whether the other's holder lives. A last good copy is of no use
until the clock is where it was, or an answer is stored again.

The cost is kept for as long as the last good copy, and while it is there that copy may be served in place of
an entry that ran out. An invalidation drops both. Whoever deletes `k` by hand and must not see the old answer
even once the ttl would have been over deletes `{k}:cost` with it.

**When Redis is away, or refuses** (its memory is full), here and nowhere else: every read is a miss, every
lease is granted and held, and nothing is stored. So callers compute, each worker for itself. A lease that
could not be given back is given back as soon as Redis answers. A foreign value
under the key does the same and is logged. Where recent entries are kept, a worker that finds Redis away
serves those it read before, until they run out. The one promise that suffers is invalidation: an entry that
could not be dropped, in Redis or in a worker that was not told, is served until its ttl and
`revalidate_seconds` are over.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

from redis.exceptions import RedisError

from src.resilience.cache.options import CacheOptions
from src.resilience.cache.store import Entry, Lease
from src.services.errors import StorageUnavailableError
from src.storage.patterns.recent_entries import RecentEntries
from src.storage.redis.connection import Reply
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import load_script

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FOREVER_SECONDS = 1e9
"""Longer than anything is kept, and a number that a script can take."""

_LEASE = load_script("cache_lease", "lease")
_RENEW, _FILL, _RELEASE = (load_script(f"cache_{task}", "cache") for task in ("renew", "fill", "release"))


class RedisCacheStore:
    """A `CacheStore` that all workers share.

    Args:
        link: Where Redis is.
        recent: Keeps what was read, for while Redis is away; None: nothing.
        answers_early: Whether a recent entry is served as soon as Redis has been silent for some 10 ms, and
            not only when it is unavailable. What another worker has invalidated is then served in a silence.
    """

    def __init__(
        self, link: RedisLink, recent: RecentEntries | None = None, *, answers_early: bool = False
    ) -> None:
        self._link = link
        self._recent = recent
        self._reads = link.tick_loader(self._read_all)
        if recent is not None and answers_early:
            link.on_silence(partial(self._reads.resolve, lambda read: recent.get(read[0])))
        self._tokens: set[str] = set()  # of leases that this worker holds, as far as it knows
        self._releasing: set[asyncio.Task[bool]] = set()

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one; all that is read in one tick is one round trip."""
        return self._reads.add((key, options))

    async def _read_all(self, reads: list[tuple[str, CacheOptions]]) -> list[Entry | None]:
        wanted = dict(reads)
        values = ("MGET", *chain.from_iterable((key, _cost(key)) for key in wanted))
        lifetimes = [("PTTL", key) for key in wanted]
        asked = self._link.send_all([values, *lifetimes], short_deadline=self._recent is not None)
        replies = await _unless_away(asked, None)
        if replies is None:
            found = {key: self._recent.get(key) if self._recent is not None else None for key in wanted}
            return [found[key] for key, _ in reads]
        found = {}
        columns = zip(wanted.items(), replies[0][::2], replies[0][1::2], replies[1:], strict=True)
        for (key, options), body, cost_ms, remaining_ms in columns:
            found[key] = _entry(body, remaining_ms, cost_ms, options.ttl_seconds, options.ttl_seconds)
            if self._recent is not None:
                self._recent.put(key, found[key])
        return [found[key] for key, _ in reads]

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last answer stored, fresh or not, if it is younger than `stale_seconds`."""
        copy = _last_good(key)
        reply = await _unless_away(self._link.send_all([("GET", copy), ("PTTL", copy)]), None)
        if reply is None:
            return None
        body, remaining_ms = reply
        return _entry(body, remaining_ms, None, options.copy_seconds, options.stale_seconds)

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last answer stored, if its entry ran out and it is younger than `max_age_seconds`."""
        copy = _last_good(key)
        reply = await _unless_away(self._link.send_all([("MGET", copy, _cost(key)), ("PTTL", copy)]), None)
        if reply is None:
            return None
        (body, cost_ms), remaining_ms = reply
        if cost_ms is None:  # invalidated
            return None
        entry = _entry(body, remaining_ms, cost_ms, options.copy_seconds, max_age_seconds)
        # A younger one's entry was deleted by hand, or has been stored since the caller looked for it.
        return None if entry is None or entry.age_seconds < options.ttl_seconds else entry

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step who computes."""
        keys = (_lease(key), key, _cost(key))
        arguments = (
            token,
            _milliseconds(options.lease_seconds),
            _milliseconds(options.ttl_seconds),
            math.floor(min(begun_within_seconds, _FOREVER_SECONDS) * 1000),  # in doubt the entry is too old
        )
        may_be_asked = self._link.is_up
        reply = await _unless_away(self._link.run(_LEASE, keys, arguments), 1)
        if isinstance(reply, list):
            body, remaining_ms, cost_ms = reply
            entry = _entry(body, remaining_ms, cost_ms, options.ttl_seconds, options.ttl_seconds)
            assert entry is not None, "the script answers with fresh entries only"
            return entry
        if reply and may_be_asked:  # and perhaps Redis took note, though no answer came
            self._tokens.add(token)
        return Lease.TAKEN if reply else Lease.HELD

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Let a lease last for `lease_seconds` from now; return False if it was lost."""
        arguments = (token, _milliseconds(options.lease_seconds))
        return bool(await _unless_away(self._link.run(_RENEW, (_lease(key),), arguments), 1))

    async def fill(self, key: str, token: str, body: bytes, options: CacheOptions) -> bool:
        """Store an answer and end its lease; return False, storing nothing, if the lease was lost."""
        keys = (_lease(key), key, _cost(key), _last_good(key))
        arguments = (
            token,
            body,
            _milliseconds(options.lease_seconds),
            _milliseconds(options.ttl_seconds),
            _milliseconds(max(options.copy_seconds, options.ttl_seconds)),
            _milliseconds(options.copy_seconds),
        )
        is_stored = await _unless_away(self._link.run(_FILL, keys, arguments), None)
        if is_stored is None:
            self._release_when_back(key, token)
        self._tokens.discard(token)
        return bool(is_stored)

    async def release(self, key: str, token: str) -> bool:
        """End a lease that came to nothing; return False if it was lost."""
        is_released = await self._release(key, token, None)
        if is_released is None:
            self._release_when_back(key, token)
        self._tokens.discard(token)
        return is_released is not False

    async def invalidate(self, keys: Sequence[str]) -> None:
        """Drop the fresh entries and the leases of `keys`.

        A `DEL` is atomic, so no script is needed.
        """
        if self._recent is not None:
            for key in keys:
                self._recent.drop(key)
        await _unless_away(self._link.send_all([("DEL", key, _cost(key), _lease(key)) for key in keys]), [])

    async def _release(self, key: str, token: str, otherwise: T) -> bool | T:
        reply = await _unless_away(self._link.run(_RELEASE, (_lease(key),), (token,)), None)
        return otherwise if reply is None else bool(reply)

    def _release_when_back(self, key: str, token: str) -> None:
        """End a lease that Redis may keep as soon as Redis answers, so that nobody waits for its end."""
        if token in self._tokens:
            releasing = asyncio.create_task(self._wait_and_release(key, token))
            self._releasing.add(releasing)
            releasing.add_done_callback(self._releasing.discard)

    async def _wait_and_release(self, key: str, token: str) -> bool:
        await self._link.until_up()
        return await self._release(key, token, otherwise=False)  # then it runs out


async def _unless_away(reply: Awaitable[T], otherwise: T) -> T:
    try:
        return await reply
    except StorageUnavailableError:  # the link has logged it
        return otherwise
    except RedisError as error:
        _log.warning("cache_refused", extra={"reason": str(error)})
        return otherwise


def _entry(
    body: Reply, expires_in_ms: int, cost_ms: bytes | None, kept_seconds: float, served_seconds: float
) -> Entry | None:
    age_ms = _milliseconds(kept_seconds) - expires_in_ms
    remaining_ms = _milliseconds(served_seconds) - age_ms
    # One that would have been stored in the future is from before it was to be kept for less long.
    if body is None or expires_in_ms <= 0 or remaining_ms <= 0 or age_ms < 0:
        return None
    return Entry(body, age_ms / 1000, remaining_ms / 1000, _seconds(cost_ms))


def _seconds(cost_ms: bytes | None) -> float:
    """Return what a computation took; nothing where it is not known, or a foreign value tells it."""
    try:
        return int(cost_ms or 0) / 1000
    except ValueError:
        _log.warning("cache_refused", extra={"reason": "a cost is no number"})
        return 0.0


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _cost(key: str) -> str:
    return f"{{{key}}}:cost"


def _last_good(key: str) -> str:
    return f"{{{key}}}:last-good"


def _lease(key: str) -> str:
    return f"{{{key}}}:lease"
