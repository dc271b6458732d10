"""The port of a rate limiter, which decides hits, and its decision."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .options import Algorithm, Quota


class Decision(NamedTuple):
    """The decision on a hit.

    Attributes:
        allowed: Whether the hit is allowed: each quota has room for it.
        quota: The quota that limits most: the one with the fewest units remaining; of several such quotas,
            the one with the longest `retry_after`, then `reset_after`.
        remaining: Units that `quota` has left now.
        retry_after: Seconds after which the same hit would be allowed if no other hit came; 0 if it is
            allowed now. It is the longest of all quotas.
        reset_after: Seconds after which the limit of every quota is free again if no other hit came.
        parts: The decision of each quota by itself, in the order of the limiter's quotas; empty if the
            limiter has one quota.
    """

    allowed: bool
    quota: Quota
    remaining: int
    retry_after: float
    reset_after: float
    parts: "tuple[Decision, ...]" = ()

    @property
    def limit(self) -> int:
        """The limit of `quota`."""
        return self.quota.limit

    @property
    def by_quota(self) -> "tuple[Decision, ...]":
        """The decision of each quota by itself."""
        return self.parts or (self,)

    @property
    def violated(self) -> tuple[Quota, ...]:
        """The quotas that have no room for the hit."""
        return tuple(part.quota for part in self.by_quota if not part.allowed)


def combine(parts: Sequence[Decision]) -> Decision:
    """Return the decision on a hit, from the decision of each quota by itself."""
    if len(parts) == 1:
        return parts[0]
    strictest = min(parts, key=lambda part: (part.remaining, -part.retry_after, -part.reset_after))
    return Decision(
        all(part.allowed for part in parts),
        strictest.quota,
        strictest.remaining,
        max(part.retry_after for part in parts),
        max(part.reset_after for part in parts),
        tuple(parts),
    )


class RateLimiter(Protocol):
    """Counts the hits of each key against the same quotas.

    A hit is allowed if each quota has room for its cost, and takes its cost from all of them or from none.

    A rate limiter with a store raises that store's error while the store is unavailable.
    """

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm by which it decides."""
        ...

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas of every key."""
        ...

    def change_quotas(self, quotas: Quota | Sequence[Quota]) -> None:
        """Decide by other quotas from now on, also for keys that have counts.

        The units that a key has used count against the new limit. The counts of the first quota become those
        of the first new quota, the counts of the second become those of the second, and so on. An added quota
        begins without counts, so add it at the end.

        If a window changes, the counts are read as if the window had always been the new one. Hits that no
        longer counted by the former window may be forgotten. In a bucket, used units become free at the new
        rate after the next decision on the key. No key is rejected for longer than the new window, or for two
        windows by `sliding_window_counter`.

        Raises:
            ValueError: There is no quota, or there are more than `MAX_QUOTAS`.
        """
        ...

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of each quota of `key`, all or none: a rejected hit takes nothing.

        Raises:
            ValueError: `cost` is below 1 or above a limit.
        """
        ...

    def try_hit(self, key: str, cost: int = 1) -> bool:
        """Take `cost` units of each quota of `key` at once and return True, or take nothing and return False.

        It does not ask the store, so False does not mean that the hit would be rejected: `hit` decides that.
        Raises ValueError as `hit` does.
        """
        ...

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision on a hit of `cost`, and take nothing. Raises as `hit` does."""
        ...

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return the decision on a hit that would certainly be rejected; None for any other hit.

        This method sends nothing to the store and does not wait, so it is the cheapest way to reject a flood.
        It raises ValueError as `hit` does.
        """
        ...

    async def reset(self, key: str) -> None:
        """Forget the hits of `key`: the limit of every quota is free."""
        ...
