"""A paced queue's store for when the shared one is unavailable."""

import logging
from contextlib import suppress

from ..clock import Clock
from ..errors import StoreUnavailableError
from .memory import MemoryPaceStore
from .options import PacedQueueOptions, QueuePolicy
from .store import Offer, PaceStatus, PaceStore, Slot, SlotDecision

_log = logging.getLogger(__name__)


class FailoverPaceStore:
    """A `PaceStore` that uses `fleet`, and this worker's own local store while `fleet` is unavailable.

    The local store gives this worker its share of the pace. So all workers together keep to the pace on
    average, but not to the order, and two workers may start calls at the same time. If only some workers
    reach `fleet`, the calls of the others come on top of its pace.

    A change of the store brings no call too close to an earlier one. The first local slot comes one local
    interval after the outage was noticed. After the outage, the first slot of `fleet` comes an interval after
    every worker can have noticed its end. `fleet` counts as available again only when it has answered a
    worker's question. If it fails again before it has given this worker a slot, the worker keeps to the local
    store until that has given it one. So an outage that comes and goes delays slots but does not stop them.

    Args:
        fleet: The store of all workers.
        options: The options of `fleet`.
        clock: Measures the local intervals.
        workers: The number of workers that share the pace.
        notice_seconds: The longest time, 0 or more, until every worker has noticed that `fleet` is available
            again.
    """

    def __init__(
        self,
        fleet: PaceStore,
        options: PacedQueueOptions,
        clock: Clock,
        *,
        workers: int,
        notice_seconds: float = 0.25,
    ) -> None:
        self._fleet = fleet
        self._options = options
        self._clock = clock
        self._notice_seconds = notice_seconds
        self._share = options.share(workers)
        self._local = MemoryPaceStore(self._share, clock)
        self._postponed_until = clock.monotonic()
        self._is_local = False
        self._has_fleet_given = True
        """Whether `fleet` has given this worker a slot since the last outage."""
        self._needs_local = False
        """Whether the local store must give this worker a slot before `fleet` is asked again."""

    async def ask(self, worker: str, offer: Offer) -> SlotDecision:
        """Ask `fleet`, or the local store while `fleet` is unavailable."""
        if not self._needs_local:
            try:
                return await self._ask_fleet(worker, offer)
            except StoreUnavailableError:
                await self._use_local()
        decision = await self._local.ask(worker, offer)
        self._needs_local = self._needs_local and decision.slot is None
        return decision

    async def give_back(self, slot: Slot) -> None:
        """Take back a slot in the store that gave it. If that is unavailable, the slot stays used."""
        with suppress(StoreUnavailableError):
            await slot.origin.give_back(slot)

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`. If `fleet` fails, it is postponed before it is asked again."""
        self._postponed_until = max(self._postponed_until, self._clock.monotonic() + seconds)
        await self._local.postpone(seconds)
        try:
            await self._fleet.postpone(seconds)
        except StoreUnavailableError:
            await self._use_local()

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on.

        Raises:
            StoreUnavailableError: `fleet` is unavailable. The policy does not change.
        """
        await self._fleet.set_policy(policy)
        await self._local.set_policy(policy)

    async def status(self) -> PaceStatus:
        """Return the state of `fleet`; that of the local store if callers wait there or `fleet` fails."""
        local = await self._local.status()
        if local.size:
            return local
        try:
            return await self._fleet.status()
        except StoreUnavailableError:
            return local

    async def _ask_fleet(self, worker: str, offer: Offer) -> SlotDecision:
        if self._is_local:
            postponed_seconds = self._postponed_until - self._clock.monotonic()
            noticed_seconds = self._options.interval_seconds + self._notice_seconds
            await self._fleet.postpone(max(noticed_seconds, postponed_seconds))
        decision = await self._fleet.ask(worker, offer)
        await self._local.set_policy(decision.policy)
        if self._is_local:
            self._is_local, self._has_fleet_given = False, False
            await self._local.ask(worker, Offer(0))  # its callers wait in `fleet` now
            _log.warning("pace_shared_again")
        self._has_fleet_given = self._has_fleet_given or decision.slot is not None
        return decision

    async def _use_local(self) -> None:
        if not self._is_local:
            self._is_local, self._needs_local = True, not self._has_fleet_given
            _log.warning("pace_local")
            await self._local.postpone(self._share.interval_seconds)
