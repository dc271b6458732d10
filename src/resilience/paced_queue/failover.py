"""A paced queue's store that switches to a local store while the shared store is unavailable."""

import logging
from contextlib import suppress

from ..clock import Clock
from ..errors import StoreUnavailableError
from .memory import MemoryPaceStore
from .options import PacedQueueOptions, QueuePolicy
from .store import Offer, PaceStatus, PaceStore, Slot, SlotDecision

_log = logging.getLogger(__name__)


class FailoverPaceStore:
    """A `PaceStore` that uses the shared store `fleet`, or a local store while `fleet` is unavailable.

    The local store gives this worker its share of the pace. So all workers together keep to the pace on
    average, but not to the order, and two workers may start calls at the same time. If only some workers
    reach `fleet`, the calls of the others are added to its pace.

    A change of the store never brings two calls closer together than the interval. The first local slot is
    due one local interval after the outage was noticed. After the outage, the first slot of `fleet` is due
    one interval after every worker can have noticed the end of the outage. `fleet` counts as available again
    when it answers an offer. If it then fails before it has assigned a slot to this worker, the worker uses
    the local store until that store has assigned a slot. So intermittent outages delay slots, but do not stop
    them.

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
        self._has_fleet_slot = True
        """Whether `fleet` has assigned a slot to this worker since the last outage."""
        self._needs_local = False
        """Whether the local store must assign a slot to this worker before `fleet` is used again."""

    async def ask(self, worker: str, offer: Offer) -> SlotDecision:
        """Make the offer to `fleet`, or to the local store while `fleet` is unavailable."""
        if not self._needs_local:
            try:
                return await self._ask_fleet(worker, offer)
            except StoreUnavailableError:
                await self._use_local()
        decision = await self._local.ask(worker, offer)
        self._needs_local = self._needs_local and decision.slot is None
        return decision

    async def give_back(self, slot: Slot) -> None:
        """Return a slot to the store that assigned it. If that store is unavailable, the slot stays used."""
        with suppress(StoreUnavailableError):
            await slot.origin.give_back(slot)

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`. If `fleet` fails, it is postponed before its next offer."""
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
        """Return the state of `fleet`, or of the local store if callers wait there or `fleet` fails."""
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
            self._is_local, self._has_fleet_slot = False, False
            await self._local.ask(worker, Offer(0))  # the callers now wait in `fleet` only
            _log.warning("pace_shared_again")
        self._has_fleet_slot = self._has_fleet_slot or decision.slot is not None
        return decision

    async def _use_local(self) -> None:
        if not self._is_local:
            self._is_local, self._needs_local = True, not self._has_fleet_slot
            _log.warning("pace_local")
            await self._local.postpone(self._share.interval_seconds)
