"""The port `CacheStore`: the entries, the last good copies and the leases of a read-through cache.

`memory` and `redis` implement it. Ages and costs are measured by the clock of the store only, so that the
clocks of different workers are never compared. The cost of an entry is the time from the taking of the lease
to the storing of the answer. The computation of an entry therefore began `age_seconds + cost_seconds` ago.
"""

from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from .options import CacheOptions


class Entry(NamedTuple):
    """A stored answer. Times are measured by the store's clock.

    Attributes:
        body: The bytes.
        age_seconds: The time since the answer was stored.
        remaining_seconds: The time until the answer expires, above 0.
        cost_seconds: The time from the taking of the lease to the storing of the answer.
    """

    body: bytes
    age_seconds: float
    remaining_seconds: float
    cost_seconds: float = 0.0


class Lease(Enum):
    """The reply to a worker that tries to take a lease."""

    TAKEN = "taken"
    HELD = "held by another"


class CacheStore(Protocol):
    """Holds entries, last good copies and leases.

    While the store is unavailable, no method raises for that reason.
    """

    def read(self, key: str, options: CacheOptions) -> Awaitable[Entry | None]:
        """Return the fresh entry, if there is one.

        The read starts with this call, even before the caller awaits the result. The caller need not await
        it.
        """
        ...

    async def read_last_good(self, key: str, options: CacheOptions) -> Entry | None:
        """Return the last stored answer, fresh or not, if it is younger than `stale_seconds`."""
        ...

    async def read_expired(self, key: str, options: CacheOptions, max_age_seconds: float) -> Entry | None:
        """Return the last stored answer if its entry has expired and its age is below `max_age_seconds`.

        An invalidated entry does not count as expired.
        """
        ...

    async def take_lease(
        self, key: str, token: str, begun_within_seconds: float, options: CacheOptions
    ) -> Entry | Lease:
        """Decide in one step which worker computes.

        Args:
            key: The key of the answer.
            token: The id of this computation, unique among all computations.
            begun_within_seconds: If the computation of a fresh entry began less than this long ago, no
                further computation is necessary. 0: no entry suffices. Infinity: every fresh entry suffices.
            options: The options of the cache, with the length of the lease.

        Returns:
            The entry that suffices. Without one, whether the caller took the lease or another holder has it.
        """
        ...

    async def renew(self, key: str, token: str, options: CacheOptions) -> bool:
        """Renew a lease for `lease_seconds` from now. Return False if the lease was lost."""
        ...

    async def fill(self, key: str, token: str, body: bytes, options: CacheOptions) -> bool:
        """Store an answer and end its lease. If the lease was lost, store nothing and return False."""
        ...

    async def release(self, key: str, token: str) -> bool:
        """End a lease without storing an answer. If the lease was lost, change nothing and return False."""
        ...

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Delete the fresh entries and the leases of `keys`, and also the last good copies if `last_good`."""
        ...
