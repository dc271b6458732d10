"""A store of circuit breakers that uses a local store while the shared store is unavailable."""

import logging

from ..errors import StoreUnavailableError
from .options import CircuitBreakerOptions
from .store import BreakerStatus, BreakerStore, ManualState, Refusal, Ticket, Transition, WouldOpen

_log = logging.getLogger(__name__)


class FailoverBreakerStore:
    """A `BreakerStore` that decides in `fleet`, and in `local` while `fleet` is unavailable.

    An outcome is recorded only in the store that admitted the call. If that store is unavailable, the outcome
    is not counted. Each store keeps its own state, and continues from it when it is used again.

    Args:
        fleet: The store that all workers share.
        local: The store of this worker, which is always available.
    """

    def __init__(self, fleet: BreakerStore, local: BreakerStore) -> None:
        self._fleet = fleet
        self._local = local
        self._is_fleet_available = True

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether to admit a call."""
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
        """Count the outcome of a call in the store that admitted it."""
        try:
            return await ticket.origin.record(name, options, ticket, failed=failed, slow=slow)
        except StoreUnavailableError:
            self._note(is_available=False)
            return None

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Renew the permit of a probe in the store that admitted it."""
        return await ticket.origin.renew(name, options, ticket)

    def release(self, name: str, ticket: Ticket) -> None:
        """Release the permit of a call without an outcome, in the store that admitted it."""
        ticket.origin.release(name, ticket)

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        manual_state: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Change the state by hand, in the store that decides now."""
        try:
            return await self._fleet.force(name, options, manual_state, open_seconds)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.force(name, options, manual_state, open_seconds)

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return the status of the breaker in the store that decides now."""
        try:
            return await self._fleet.status(name, options)
        except StoreUnavailableError:
            self._note(is_available=False)
            return await self._local.status(name, options)

    def _note(self, *, is_available: bool) -> None:
        if is_available != self._is_fleet_available:
            self._is_fleet_available = is_available
            _log.warning("breaker_shared_again" if is_available else "breaker_local")
