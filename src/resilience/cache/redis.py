"""The store of the cache in Redis.

**Keys.** An entry is a string under the caller's key `k`. Its expiry is exactly its ttl: `GET` returns the
answer, `TTL` the time for which it is fresh, and after `DEL` the next reader computes. Three more keys belong
to an entry:

- `{k}:cost`: the duration of the computation in milliseconds,
- `{k}:last-good`: a copy of the answer, which is kept longer than the entry,
- `{k}:lease`: the token of the worker that computes.

The braces are a hash tag, so that all four keys are in one slot. `k` itself must therefore contain no braces.

**Ages.** All keys expire by Redis' clock. The age of an entry follows from its ttl and its remaining time,
and the cost from the remaining time of the lease.

**Clock set back.** If Redis' clock is set back, entries that were stored before are misses and leases that
were taken before have ended, because their ages are not known. A last good copy is not served until the clock
has reached its earlier time, or until an answer is stored again.

**Invalidation.** The cost is kept as long as the last good copy. The copy may replace an expired entry only
while the cost exists. An invalidation deletes the entry and the cost. To delete `k` by hand without serving
the old answer later, delete `{k}:cost` too.

**While Redis is unavailable or refuses**, this store treats every read as a miss, grants and renews every
lease, and stores nothing. Each worker then computes for itself. A value of another program under a key has
the same effect, and is logged. With recent entries, a worker serves an entry that it has read until the entry
expires. Only invalidation is then not guaranteed: an entry that could not be deleted, in Redis or in another
worker, is served until its ttl and `revalidate_seconds` are over.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from ..errors import StoreUnavailableError
from ..redis.client_runner import Client, script_runner
from ..redis.port import Reply, ScriptRunner
from ..redis.scripts import COMMAND, load_script
from .options import CacheOptions
from .recent_entries import RecentEntries
from .store import Entry, Lease

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FOREVER_SECONDS = 1e9
"""A time that is longer than any lifetime, as a number that scripts accept."""

_FOLDER = Path(__file__).parent
_READ, _TAKE_LEASE, _RENEW, _FILL, RELEASE = (
    load_script(_FOLDER / f"{task}.lua") for task in ("read", "take_lease", "renew", "fill", "release")
)


class RedisCacheStore:
    """A `CacheStore` that all workers share.

    Args:
        redis: A client of `redis.asyncio`, or a `ScriptRunner`.
        recent: Keeps the entries that were read, and serves them while Redis is unavailable. None keeps
            nothing.
    """

    def __init__(self, redis: ScriptRunner | Client, recent: RecentEntries | None = None) -> None:
        self._runner = script_runner(redis)
        self._recent = recent
        self._background: set[asyncio.Task[object]] = set()

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one. The read starts with this call."""
        reading = asyncio.create_task(self._read(key, options))
        self._keep_reference(reading)
        return reading

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last stored answer, fresh or not, if it is younger than `stale_seconds`."""
        reply = await self._read_values(_last_good_key(key), key)
        if reply is None:
            return None
        body, _, remaining_ms = reply
        return _entry(body, remaining_ms, None, options.copy_seconds, options.stale_seconds)

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last stored answer if its entry has expired and its age is below `max_age_seconds`."""
        reply = await self._read_values(_last_good_key(key), key)
        if reply is None:
            return None
        body, cost_ms, remaining_ms = reply
        if cost_ms is None:  # the entry was invalidated
            return None
        entry = _entry(body, remaining_ms, cost_ms, options.copy_seconds, max_age_seconds)
        # If the answer is younger than the ttl, its entry was deleted by hand, or was stored after the
        # caller's read.
        return None if entry is None or entry.age_seconds < options.ttl_seconds else entry

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step which worker computes."""
        keys = (_lease_key(key), key, cost_key(key))
        arguments = (
            token,
            _milliseconds(options.lease_seconds),
            _milliseconds(options.ttl_seconds),
            math.floor(
                min(begun_within_seconds, _FOREVER_SECONDS) * 1000
            ),  # rounded towards a new computation
        )
        reply = await unless_unavailable(self._runner.run(_TAKE_LEASE, keys, arguments), 1)
        if isinstance(reply, list):
            body, remaining_ms, cost_ms = reply
            entry = _entry(body, remaining_ms, cost_ms, options.ttl_seconds, options.ttl_seconds)
            assert entry is not None, "the script returns fresh entries only"
            return entry
        return Lease.TAKEN if reply else Lease.HELD

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Renew a lease for `lease_seconds` from now. Return False if the lease was lost."""
        arguments = (token, _milliseconds(options.lease_seconds))
        return bool(await unless_unavailable(self._runner.run(_RENEW, (_lease_key(key),), arguments), 1))

    async def fill(self, key: str, token: str, body: bytes, options: CacheOptions) -> bool:
        """Store an answer and end its lease. If the lease was lost, store nothing and return False."""
        keys = (_lease_key(key), key, cost_key(key), _last_good_key(key))
        arguments = (
            token,
            body,
            _milliseconds(options.lease_seconds),
            _milliseconds(options.ttl_seconds),
            _milliseconds(max(options.copy_seconds, options.ttl_seconds)),
            _milliseconds(options.copy_seconds),
        )
        is_stored = await unless_unavailable(self._runner.run(_FILL, keys, arguments), None)
        self._end_lease(key, token, is_ended=is_stored is not None)
        return bool(is_stored)

    async def release(self, key: str, token: str) -> bool:
        """End a lease without storing an answer. Return False if the lease was lost."""
        is_released = await self._release(key, token)
        self._end_lease(key, token, is_ended=is_released is not None)
        return is_released is not False

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Delete the fresh entries and the leases of `keys`, and the last good copies if `last_good` is set.

        Each key is deleted in one step.
        """
        if self._recent is not None:
            for key in keys:
                self._recent.drop(key)
        await asyncio.gather(*(self._delete(key, last_good=last_good) for key in keys))

    async def _delete(self, key: str, *, last_good: bool) -> None:
        keys = [key, cost_key(key), _lease_key(key)]
        if last_good:
            keys.append(_last_good_key(key))
        await unless_unavailable(self._runner.run(COMMAND, keys, ("DEL",)), None)

    async def _read(self, key: str, options: CacheOptions) -> Entry | None:
        reply = await self._read_values(key, key)
        return self._recent_entry(key) if reply is None else self._fresh_entry(key, options, *reply)

    async def _read_values(self, value_key: str, key: str) -> list[Reply] | None:
        """Return the value under `value_key`, the cost of `key`, and the remaining ms of the value."""
        return await unless_unavailable(self._runner.run(_READ, (value_key, cost_key(key))), None)

    def _fresh_entry(
        self, key: str, options: CacheOptions, body: Reply, cost_ms: Reply, remaining_ms: int
    ) -> Entry | None:
        """Return the entry from the values in Redis, if it is fresh, and keep it as a recent entry."""
        entry = _entry(body, remaining_ms, cost_ms, options.ttl_seconds, options.ttl_seconds)
        if self._recent is not None:
            self._recent.put(key, entry)
        return entry

    def _recent_entry(self, key: str) -> Entry | None:
        return None if self._recent is None else self._recent.get(key)

    async def _release(self, key: str, token: str) -> bool | None:
        """Release a lease.

        Return True if it was released, False if it was lost, None if Redis is unavailable.
        """
        reply = await unless_unavailable(self._runner.run(RELEASE, (_lease_key(key),), (token,)), None)
        return None if reply is None else bool(reply)

    def _end_lease(self, key: str, token: str, *, is_ended: bool) -> None:
        """Called when a holder has finished.

        A lease that Redis could not end expires. Subclasses may do more.
        """

    def _keep_reference(self, task: asyncio.Task[T]) -> None:
        """Keep a reference to a task until it has finished, so that it is not garbage-collected."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def unless_unavailable(reply: Awaitable[T], otherwise: T) -> T:
    """Return `reply`, or `otherwise` if Redis is unavailable, refuses, or finds another program's value."""
    try:
        return await reply
    except StoreUnavailableError:  # the runner logs it
        return otherwise
    except RedisError as error:
        _log.warning("cache_refused", extra={"reason": str(error)})
        return otherwise


def _entry(
    body: Reply, expires_in_ms: int, cost_ms: bytes | None, kept_seconds: float, served_seconds: float
) -> Entry | None:
    age_ms = _milliseconds(kept_seconds) - expires_in_ms
    remaining_ms = _milliseconds(served_seconds) - age_ms
    # A negative age means that the ttl was longer when the value was stored, or that the clock was set back.
    if body is None or expires_in_ms <= 0 or remaining_ms <= 0 or age_ms < 0:
        return None
    return Entry(body, age_ms / 1000, remaining_ms / 1000, _seconds(cost_ms))


def _seconds(cost_ms: bytes | None) -> float:
    """Return the cost in seconds, or 0 if it is missing or not a number."""
    try:
        return int(cost_ms or 0) / 1000
    except ValueError:
        _log.warning("cache_refused", extra={"reason": "a cost is not a number"})
        return 0.0


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def cost_key(key: str) -> str:
    """Return the key of the cost: the duration of the computation of `key`."""
    return f"{{{key}}}:cost"


def _last_good_key(key: str) -> str:
    return f"{{{key}}}:last-good"


def _lease_key(key: str) -> str:
    return f"{{{key}}}:lease"
