"""A rate limiter that decides in this process while its store is unavailable."""

import logging
from collections.abc import Sequence

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import StoreUnavailableError
from .memory import memory_rate_limiter
from .options import Algorithm, Quota, quotas_in
from .store import Decision, RateLimiter

_log = logging.getLogger(__name__)


class FailoverRateLimiter:
    """A `RateLimiter` that decides in `fleet`, and by this worker's share while `fleet` is unavailable.

    The shares of all workers together are the quota. The counts of `fleet` and of this worker are separate,
    so a key may use a part of its quota again when an outage begins, and when it ends.

    Args:
        fleet: The limiter that all workers share.
        clock: Counts the hits of this worker.
        workers: The number of workers, at least 1.

    Raises:
        ValueError: `workers` is below 1.
    """

    def __init__(self, fleet: RateLimiter, clock: Clock = SYSTEM_CLOCK, *, workers: int = 1) -> None:
        if not workers >= 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._fleet = fleet
        self._workers = workers
        self._local = memory_rate_limiter(fleet.algorithm, self._shares(fleet.quotas), clock)
        self._is_fleet_available = True

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of `fleet`."""
        return self._fleet.algorithm

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas of `fleet`. A decision during an outage names the share of its quota."""
        return self._fleet.quotas

    def change_quotas(self, quotas: Quota | Sequence[Quota]) -> None:
        """Decide by other quotas from now on, and by their shares."""
        self._fleet.change_quotas(quotas)
        self._local.change_quotas(self._shares(self._fleet.quotas))

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take `cost` units. During an outage, a cost above the share takes the whole share."""
        try:
            decision = await self._fleet.hit(key, cost)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.hit(key, self._local_cost(cost))
        if decision.allowed:  # a rejection may be known without the store
            self._note(is_available=True)
        return decision

    def try_hit(self, key: str, cost: int = 1) -> bool:
        """Take `cost` units at once, if `fleet` needs no store for it."""
        return self._fleet.try_hit(key, cost)

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision that a hit would get, and take nothing."""
        try:
            return await self._fleet.peek(key, cost)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.peek(key, self._local_cost(cost))

    def refusal(self, key: str, cost: int = 1) -> Decision | None:
        """Repeat a rejection of `fleet`; None where it is not known."""
        return self._fleet.refusal(key, cost)

    async def reset(self, key: str) -> None:
        """Forget `key`.

        Raises:
            StoreUnavailableError: `fleet` may still count the hits of `key`.
        """
        await self._local.reset(key)
        await self._fleet.reset(key)

    def _shares(self, quotas: Quota | Sequence[Quota]) -> list[Quota]:
        return [quota.share(self._workers) for quota in quotas_in(quotas)]

    def _local_cost(self, cost: int) -> int:
        return min(cost, *(quota.limit for quota in self._local.quotas))

    def _note(self, *, is_available: bool) -> None:
        if is_available != self._is_fleet_available:
            self._is_fleet_available = is_available
            _log.warning("limiter_shared_again" if is_available else "limiter_local")
