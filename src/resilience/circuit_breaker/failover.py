"""A circuit breaker's store for when the shared one is unavailable."""

import logging

from ..errors import StoreUnavailableError
from .options import CircuitBreakerOptions
from .store import BreakerStatus, BreakerStore, ManualState, Refusal, Ticket, Transition, WouldOpen

_log = logging.getLogger(__name__)


class FailoverBreakerStore:
    """A `BreakerStore` that decides in `fleet`, and in `local` while `fleet` is unavailable.

    A result goes to the store that admitted the call and to no other. If that is unavailable, the result is
    dropped. Each store continues from the state that it had when it last decided.

    Args:
        fleet: The store of all workers.
        local: This worker's own store, which is always available.
    """

    def __init__(self, fleet: BreakerStore, local: BreakerStore) -> None:
        self._fleet = fleet
        self._local = local
        self._is_fleet_available = True

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now."""
        try:
            admission = await self._fleet.admit(name, options)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.admit(name, options)
        self._note(is_available=True)
        return admission

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call where it was admitted."""
        try:
            return await ticket.origin.record(name, options, ticket, failed=failed, slow=slow)
        except StoreUnavailableError:
            self._note(is_available=False)
            return None

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit where it was admitted."""
        return await ticket.origin.renew(name, options, ticket)

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome where it was admitted."""
        ticket.origin.release(name, ticket)

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        order: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Go to the state ordered, in the store that decides now."""
        try:
            return await self._fleet.force(name, options, order, open_seconds)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.force(name, options, order, open_seconds)

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands in the store that decides now."""
        try:
            return await self._fleet.status(name, options)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.status(name, options)

    def _note(self, *, is_available: bool) -> None:
        if is_available != self._is_fleet_available:
            self._is_fleet_available = is_available
            _log.warning("breaker_shared_again" if is_available else "breaker_local")
