"""A cache store for one process."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace

from ..clock import SYSTEM_CLOCK, Clock
from .options import CacheOptions
from .store import Entry, Lease


@dataclass(slots=True)
class _Copy:
    body: bytes
    begun_at: float
    stored_at: float
    is_valid: bool = True


@dataclass(frozen=True, slots=True)
class _Claim:
    token: str
    taken_at: float
    ends_at: float


class MemoryCacheStore:
    """A `CacheStore` for one process.

    Args:
        clock: The clock for ages and leases.
        max_entries: The largest number of keys, at least 1. Beyond it, the least recently used key is
            removed.

    Raises:
        ValueError: `max_entries` is below 1.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, max_entries: int = 10_000) -> None:
        if not max_entries >= 1:
            raise ValueError(f"max_entries must be at least 1, not {max_entries}")
        self._clock = clock
        self._max_entries = max_entries
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._claims: dict[str, _Claim] = {}

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one."""
        future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        future.set_result(self._fresh_entry(key, options))
        return future

    def _fresh_entry(self, key: str, options: CacheOptions) -> Entry | None:
        copy = self._copies.get(key)
        return None if copy is None or not copy.is_valid else self._entry(key, copy, options.ttl_seconds)

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last stored answer, fresh or not, if it is younger than `stale_seconds`."""
        copy = self._copies.get(key)
        return None if copy is None else self._entry(key, copy, options.stale_seconds)

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last stored answer if its entry has expired and its age is below `max_age_seconds`."""
        copy = self._copies.get(key)
        if copy is None or not copy.is_valid or self._age(copy) < options.ttl_seconds:
            return None
        return self._entry(key, copy, max_age_seconds)

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step which worker computes."""
        now = self._clock.monotonic()
        entry = self._fresh_entry(key, options)
        if entry is not None and now - self._copies[key].begun_at < begun_within_seconds:
            return entry
        if self._claim(key) is not None:
            return Lease.HELD
        self._claims[key] = _Claim(token, now, now + options.lease_seconds)
        return Lease.TAKEN

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Renew a lease for `lease_seconds` from now. Return False if the lease was lost."""
        claim = self._claim(key)
        if claim is None or claim.token != token:
            return False
        self._claims[key] = replace(claim, ends_at=self._clock.monotonic() + options.lease_seconds)
        return True

    async def fill(
        self,
        key: str,
        token: str,
        body: bytes,
        options: CacheOptions,  # noqa: ARG002 -- this store applies the options when it reads
    ) -> bool:
        """Store an answer and end its lease. If the lease was lost, store nothing and return False."""
        claim = self._claim(key)
        if claim is None or claim.token != token:
            return False
        del self._claims[key]
        self._copies[key] = _Copy(body, claim.taken_at, self._clock.monotonic())
        self._copies.move_to_end(key)
        if len(self._copies) > self._max_entries:
            self._copies.popitem(last=False)
        return True

    async def release(self, key: str, token: str) -> bool:
        """End a lease without storing an answer. Return False if the lease was lost."""
        claim = self._claim(key)
        if claim is None or claim.token != token:
            return False
        del self._claims[key]
        return True

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Drop the fresh entries and the leases of `keys`, and the last good copies if `last_good` is set."""
        for key in keys:
            self._claims.pop(key, None)
            if last_good:
                self._copies.pop(key, None)
            elif key in self._copies:
                self._copies[key].is_valid = False

    def _claim(self, key: str) -> _Claim | None:
        """Return the claim on the lease of `key`. An expired claim is removed."""
        claim = self._claims.get(key)
        if claim is None or self._clock.monotonic() < claim.ends_at:
            return claim
        del self._claims[key]
        return None

    def _entry(self, key: str, copy: _Copy, lifetime_seconds: float) -> Entry | None:
        age_seconds = self._age(copy)
        if age_seconds >= lifetime_seconds:
            return None
        self._copies.move_to_end(key)
        return Entry(copy.body, age_seconds, lifetime_seconds - age_seconds, copy.stored_at - copy.begun_at)

    def _age(self, copy: _Copy) -> float:
        return self._clock.monotonic() - copy.stored_at
