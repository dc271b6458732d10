"""The port of a rate limiter: what decides a hit, and its decision."""

from typing import NamedTuple, Protocol

from .options import Quota


class Decision(NamedTuple):
    """What a rate limiter says.

    Attributes:
        allowed: Whether there is room for what was asked.
        limit: The quota's.
        remaining: Units for which there is room now.
        retry_after: Seconds after which the same request, nothing else changed, would be let through; 0 when
            it is allowed.
        reset_after: Seconds after which, nothing else changed, the whole limit is free again.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset_after: float


class RateLimiter(Protocol):
    """Counts against one quota, for each key apart.

    One that asks a store raises that store's error when it is away.
    """

    @property
    def quota(self) -> Quota:
        """The quota that it keeps."""
        ...

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units of the quota of `key`, all or none: a refused hit takes nothing.

        Raises:
            ValueError: `cost` is below 1 or above the limit.
        """
        ...

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Say what a hit of `cost` would be told, and take nothing. Raises as `hit` does."""
        ...

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Return what a hit would be told that is known to be refused, without asking; None of any other.

        Nobody has to wait for it, so it is the cheapest way to turn a flood away. Raises ValueError as `hit`
        does.
        """
        ...

    async def reset(self, key: str) -> None:
        """Forget `key`: its whole limit is free."""
        ...
