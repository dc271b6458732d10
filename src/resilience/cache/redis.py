"""The cache's store in Redis.

An entry is a plain string under the caller's own key, with an expiry of exactly its ttl: `GET` shows the
answer, `TTL` how long it stays fresh, and after `DEL` the next reader computes. Beside `k` there are
`{k}:cost` (how long the computation took, in milliseconds), `{k}:last-good` (the answer again, for when there
is no entry) and `{k}:lease` (the token of the worker that computes now). The braces make a hash tag, so that
all four keys are in one slot. A key must therefore hold no braces of its own. Everything runs out by Redis'
own expiry, hence by Redis' clock, and ages follow from the remaining time: the entry's age from its ttl, the
cost of its computation from the lease.

After Redis' clock is set back, an entry that was stored before is a miss, and a lease that was given before
has ended: nothing says how old the entry is, or whether the lease's holder lives. A last good copy is of no
use until the clock is where it was, or an answer is stored again.

The cost is kept for as long as the last good copy. While the cost is there, that copy may be served instead
of an entry that ran out. An invalidation drops both. To delete `k` by hand, so that nobody sees the old
answer even when its ttl would have been over, delete `{k}:cost` too.

**While Redis is unavailable or refuses** (its memory is full), here and nowhere else: every read is a miss,
every lease is granted and held, and nothing is stored. So callers compute, each worker by itself. A foreign
value under the key has the same effect and is logged. With recent entries, a worker serves what it read
before until that runs out. The one promise that suffers is invalidation: an entry that could not be dropped,
in Redis or in another worker, is served until its ttl and `revalidate_seconds` are over.
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
"""Longer than anything is kept, and a number that a script can take."""

_FOLDER = Path(__file__).parent
_READ, _TAKE_LEASE, _RENEW, _FILL, RELEASE = (
    load_script(_FOLDER / f"{task}.lua") for task in ("read", "take_lease", "renew", "fill", "release")
)


class RedisCacheStore:
    """A `CacheStore` that all workers share.

    Args:
        redis: A client of `redis.asyncio`, or what else runs scripts.
        recent: Keeps the entries that were read, for while Redis is unavailable; None keeps nothing.
    """

    def __init__(self, redis: ScriptRunner | Client, recent: RecentEntries | None = None) -> None:
        self._runner = script_runner(redis)
        self._recent = recent
        self._background: set[asyncio.Task[object]] = set()

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one. The reading begins with this call."""
        reading = asyncio.create_task(self._read(key, options))
        self._keep(reading)
        return reading

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last answer stored, fresh or not, if it is younger than `stale_seconds`."""
        reply = await self._read_values(_last_good(key), key)
        if reply is None:
            return None
        body, _, remaining_ms = reply
        return _entry(body, remaining_ms, None, options.copy_seconds, options.stale_seconds)

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last answer stored, if its entry ran out and it is younger than `max_age_seconds`."""
        reply = await self._read_values(_last_good(key), key)
        if reply is None:
            return None
        body, cost_ms, remaining_ms = reply
        if cost_ms is None:  # invalidated
            return None
        entry = _entry(body, remaining_ms, cost_ms, options.copy_seconds, max_age_seconds)
        # A younger one's entry was deleted by hand, or has been stored since the caller looked for it.
        return None if entry is None or entry.age_seconds < options.ttl_seconds else entry

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step who computes."""
        keys = (_lease(key), key, cost_key(key))
        arguments = (
            token,
            _milliseconds(options.lease_seconds),
            _milliseconds(options.ttl_seconds),
            math.floor(min(begun_within_seconds, _FOREVER_SECONDS) * 1000),  # in doubt the entry is too old
        )
        reply = await unless_unavailable(self._runner.run(_TAKE_LEASE, keys, arguments), 1)
        if isinstance(reply, list):
            body, remaining_ms, cost_ms = reply
            entry = _entry(body, remaining_ms, cost_ms, options.ttl_seconds, options.ttl_seconds)
            assert entry is not None, "the script answers with fresh entries only"
            return entry
        return Lease.TAKEN if reply else Lease.HELD

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Let a lease last for `lease_seconds` from now; return False if it was lost."""
        arguments = (token, _milliseconds(options.lease_seconds))
        return bool(await unless_unavailable(self._runner.run(_RENEW, (_lease(key),), arguments), 1))

    async def fill(self, key: str, token: str, body: bytes, options: CacheOptions) -> bool:
        """Store an answer and end its lease; return False, storing nothing, if the lease was lost."""
        keys = (_lease(key), key, cost_key(key), _last_good(key))
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
        """End a lease that came to nothing; return False if it was lost."""
        is_released = await self._release(key, token)
        self._end_lease(key, token, is_ended=is_released is not None)
        return is_released is not False

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Drop the fresh entries and the leases of `keys`, and the last good copies if `last_good` is set.

        Each key is dropped in one step.
        """
        if self._recent is not None:
            for key in keys:
                self._recent.drop(key)
        await asyncio.gather(*(self._drop(key, last_good=last_good) for key in keys))

    async def _drop(self, key: str, *, last_good: bool) -> None:
        keys = [key, cost_key(key), _lease(key)]
        if last_good:
            keys.append(_last_good(key))
        await unless_unavailable(self._runner.run(COMMAND, keys, ("DEL",)), None)

    async def _read(self, key: str, options: CacheOptions) -> Entry | None:
        reply = await self._read_values(key, key)
        return self._recent_entry(key) if reply is None else self._fresh_entry(key, options, *reply)

    async def _read_values(self, value_key: str, key: str) -> list[Reply] | None:
        """Return the value under `value_key`, the cost of `key` and the value's remaining ms."""
        return await unless_unavailable(self._runner.run(_READ, (value_key, cost_key(key))), None)

    def _fresh_entry(
        self, key: str, options: CacheOptions, body: Reply, cost_ms: Reply, remaining_ms: int
    ) -> Entry | None:
        """Return the entry that Redis has under `key`, if it is fresh, and keep it as the recent one."""
        entry = _entry(body, remaining_ms, cost_ms, options.ttl_seconds, options.ttl_seconds)
        if self._recent is not None:
            self._recent.put(key, entry)
        return entry

    def _recent_entry(self, key: str) -> Entry | None:
        return None if self._recent is None else self._recent.get(key)

    async def _release(self, key: str, token: str) -> bool | None:
        """Release the lease: True if it was released, False if it was lost, None if that is not known."""
        reply = await unless_unavailable(self._runner.run(RELEASE, (_lease(key),), (token,)), None)
        return None if reply is None else bool(reply)

    def _end_lease(self, key: str, token: str, *, is_ended: bool) -> None:
        """Take note that the holder has finished. A lease that Redis could not end runs out."""

    def _keep(self, task: asyncio.Task[T]) -> None:
        """Keep a reference to a task until it has finished."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def unless_unavailable(reply: Awaitable[T], otherwise: T) -> T:
    """Return `reply`, or `otherwise` if Redis is unavailable, refuses, or finds a foreign value."""
    try:
        return await reply
    except StoreUnavailableError:  # the runner reports it
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
    """Return how long a computation took; 0 where that is not known, or a foreign value is in its place."""
    try:
        return int(cost_ms or 0) / 1000
    except ValueError:
        _log.warning("cache_refused", extra={"reason": "a cost is no number"})
        return 0.0


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def cost_key(key: str) -> str:
    """Return the key that holds how long the computation of `key` took."""
    return f"{{{key}}}:cost"


def _last_good(key: str) -> str:
    return f"{{{key}}}:last-good"


def _lease(key: str) -> str:
    return f"{{{key}}}:lease"
