"""Where a read-through cache keeps its bytes: entries, last good copies and leases.

`CacheStore` is the port; its form for one process is in `memory`. An entry knows how old it is and how
long its computation took, and so when that began: both by the store's one clock, the second from the moment
the lease was taken. What a worker's clock says is never compared with another's.
"""

from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from .options import CacheOptions


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

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Drop the fresh entries and the leases of `keys`, and the last good copies if `last_good` is set."""
        ...
