"""Where a read-through cache keeps its bytes: entries, last good copies and leases.

`CacheStore` is the port; `MemoryCacheStore` is its form for one process. An entry knows how old it is and how
long its computation took, and so when that began: both by the store's one clock, the second from the moment
the lease was taken. What a worker's clock says is never compared with another's.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

from src.resilience.clock import Clock


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How long things last. Times are in seconds, finite, and at least a millisecond unless 0 is allowed.

    Attributes:
        ttl_seconds: How long an entry is fresh.
        stale_seconds: Age up to which a last good answer may stand in for a failed computation; 0 for never.
            Of use only when longer than `ttl_seconds`.
        lease_seconds: How long the lease of a computation lasts unless it is renewed, and so how long other
            workers wait for one that died.
        computation_seconds: How long a computation's lease is renewed. What takes longer is not stored, so
            this should be above the longest to be expected.
        patience_seconds: How long a caller waits for a computation, counted from its beginning, while there
            is a last good answer that ran out and was not invalidated; then that is served in the meantime. 0
            for not at all.
        early_refresh_beta: How eagerly entries are refreshed before they run out: 1 is optimal by the paper,
            more is earlier, 0 is never.
        revalidate_seconds: For how long after its end an entry is still answered with while a new one is
            computed in the background; 0 for not at all.
        negative_seconds: For how long a computation that failed is not begun again; 0 for not at all.
    """

    ttl_seconds: float = 300.0
    stale_seconds: float = 3600.0
    lease_seconds: float = 2.0
    computation_seconds: float = 30.0
    patience_seconds: float = 1.0
    early_refresh_beta: float = 1.0
    revalidate_seconds: float = 0.0
    negative_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            if not 0.001 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0.001, not {getattr(self, name)}")
        for name in _FROM_ZERO:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, not {getattr(self, name)}")

    @property
    def served_seconds(self) -> float:
        """Age up to which an answer is served without regard to how its next computation goes."""
        return self.ttl_seconds + self.revalidate_seconds

    @property
    def copy_seconds(self) -> float:
        """Age up to which a last good copy is of use; 0 for none. An entry may outlive it."""
        return max(self.stale_seconds, self.served_seconds) if self.revalidate_seconds else self.stale_seconds


_ABOVE_ZERO = ("ttl_seconds", "lease_seconds", "computation_seconds")
_FROM_ZERO = (
    "stale_seconds", "patience_seconds", "early_refresh_beta", "revalidate_seconds", "negative_seconds",
)  # fmt: skip


class Entry(NamedTuple):
    """What a store has under a key.

    Attributes:
        body: The answer.
        age_seconds: Time since it was stored, by the store's clock.
        remaining_seconds: Time until it runs out, by the store's clock; above 0.
        cost_seconds: How long its computation took, from the lease to the filling, by the store's clock: it
            began `age_seconds + cost_seconds` ago.
    """

    body: bytes
    age_seconds: float
    remaining_seconds: float
    cost_seconds: float = 0.0


class Lease(Enum):
    """The reply to a worker that wants to compute."""

    TAKEN = "taken"
    HELD = "held by another"


class CacheStore(Protocol):
    """Where entries, last good copies and leases are. No method fails because the store is away."""

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one.

        The reading begins with this call, whatever the caller awaits first, and need not be awaited.
        """
        ...

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last answer stored, fresh or not, if it is younger than `stale_seconds`."""
        ...

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last answer stored, if its entry ran out and it is younger than `max_age_seconds`.

        One that was invalidated did not run out.
        """
        ...

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step who computes.

        Args:
            key: Whose lease.
            token: Tells this computation from every other.
            begun_within_seconds: A fresh entry whose computation begun less than this long ago makes another
                one needless; 0 for none, infinite for any.
            options: For how long the lease is given.

        Returns:
            That entry if there is one; or else whether the lease is now the caller's.
        """
        ...

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Let a lease last for `lease_seconds` from now; return False if it was lost."""
        ...

    async def fill(self, key: str, token: str, body: bytes, options: CacheOptions) -> bool:
        """Store an answer and end its lease; return False, storing nothing, if the lease was lost."""
        ...

    async def release(self, key: str, token: str) -> bool:
        """End a lease that came to nothing; return False, leaving it to its new holder, if it was lost."""
        ...

    async def invalidate(self, keys: Sequence[str]) -> None:
        """Drop the fresh entries and the leases of `keys`; last good copies stay."""
        ...


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
        clock: By which things age.
        max_entries: Keys kept, at least 1; beyond that the one whose last use is longest ago goes.
    """

    def __init__(self, clock: Clock, max_entries: int = 10_000) -> None:
        if not max_entries >= 1:
            raise ValueError(f"max_entries must be at least 1, not {max_entries}")
        self._clock = clock
        self._max_entries = max_entries
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._claims: dict[str, _Claim] = {}

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one."""
        found: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        found.set_result(self._fresh(key, options))
        return found

    def _fresh(self, key: str, options: CacheOptions) -> Entry | None:
        copy = self._copies.get(key)
        return None if copy is None or not copy.is_valid else self._entry(key, copy, options.ttl_seconds)

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last answer stored, fresh or not, if it is younger than `stale_seconds`."""
        copy = self._copies.get(key)
        return None if copy is None else self._entry(key, copy, options.stale_seconds)

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last answer stored, if its entry ran out and it is younger than `max_age_seconds`."""
        copy = self._copies.get(key)
        if copy is None or not copy.is_valid or self._age(copy) < options.ttl_seconds:
            return None
        return self._entry(key, copy, max_age_seconds)

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step who computes."""
        now = self._clock.monotonic()
        entry = self._fresh(key, options)
        if entry is not None and now - self._copies[key].begun_at < begun_within_seconds:
            return entry
        if self._claim(key) is not None:
            return Lease.HELD
        self._claims[key] = _Claim(token, now, now + options.lease_seconds)
        return Lease.TAKEN

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Let a lease last for `lease_seconds` from now; return False if it was lost."""
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
        options: CacheOptions,  # noqa: ARG002 -- what is stored here is judged when it is read
    ) -> bool:
        """Store an answer and end its lease; return False, storing nothing, if the lease was lost."""
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
        """End a lease that came to nothing; return False if it was lost."""
        claim = self._claim(key)
        if claim is None or claim.token != token:
            return False
        del self._claims[key]
        return True

    async def invalidate(self, keys: Sequence[str]) -> None:
        """Drop the fresh entries and the leases of `keys`."""
        for key in keys:
            self._claims.pop(key, None)
            if key in self._copies:
                self._copies[key].is_valid = False

    def _claim(self, key: str) -> _Claim | None:
        """Return the lease; one that has run out is removed."""
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
