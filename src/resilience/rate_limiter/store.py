"""The port of a rate limiter, which decides hits, and its decision."""

from typing import NamedTuple, Protocol

from .options import Algorithm, Quota


class Decision(NamedTuple):
    """The decision on a hit.

    Attributes:
        allowed: Whether the hit is let through.
        limit: The limit of the quota.
        remaining: Units that are free now.
        retry_after: Seconds after which the same hit, nothing else changed, would be let through; 0 where it
            is let through now.
        reset_after: Seconds after which, nothing else changed, the whole limit is free again.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float


class RateLimiter(Protocol):
    """Counts the hits of each key against one quota.

    A rate limiter with a store raises that store's error while the store is unavailable.
    """

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm by which it decides."""
        ...

    @property
    def quota(self) -> Quota:
        """The quota that it keeps."""
        ...

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of the quota of `key`, all or none: a rejected hit takes nothing.

        Raises:
            ValueError: `cost` is below 1 or above the limit.
        """
        ...

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision on a hit of `cost`, and take nothing. Raises as `hit` does."""
        ...

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return the decision on a hit that is known to be rejected; None for any other hit.

        It does not ask the store and does not wait, so it is the cheapest way to reject a flood. Raises
        ValueError as `hit` does.
        """
        ...

    async def reset(self, key: str) -> None:
        """Forget the hits of `key`: its whole limit is free."""
        ...
