"""Slots of one process: the `PaceStore` in memory.

The Lua scripts in this folder implement the same rules, and one contract suite tests both.
"""

from dataclasses import dataclass, replace

from ..clock import SYSTEM_CLOCK, Clock
from .options import PacedQueueOptions, QueuePolicy
from .store import Offer, PaceStatus, Slot, SlotDecision


@dataclass(frozen=True, slots=True)
class _WorkerQueue:
    """A worker's queue as of its last offer. Times are in µs."""

    arrived_us: int
    """The arrival time of its oldest caller."""
    rank_us: int
    """The rank of its first caller by priority."""
    size: int
    due_us: int
    """The due time of the slot that it waits for."""
    expires_us: int

    def rank(self, policy: QueuePolicy) -> int:
        return self.arrived_us if policy == "fifo" else self.rank_us


class MemoryPaceStore:
    """Slots of one process, on one event loop. No method suspends, so each decision is atomic.

    Args:
        options: The options of the queue.
        clock: Its monotonic reading determines when a slot is due.
    """

    def __init__(self, options: PacedQueueOptions, clock: Clock = SYSTEM_CLOCK) -> None:
        self._options = options
        self._clock = clock
        self._policy = options.policy
        self._queues: dict[str, _WorkerQueue] = {}
        self._slots = 0
        self._next_us = self._next_before_us = self._not_before_us = self._now_us()

    async def ask(self, worker: str, offer: Offer) -> SlotDecision:
        """Record the offer of `worker`, admit its newcomers, and assign a slot to it if it is next."""
        options, now_us = self._options, self._now_us()
        self._queues.pop(worker, None)
        self._queues = self._live(now_us)
        waiting = sum(queue.size for queue in self._queues.values())
        mine = _WorkerQueue(now_us - offer.age_us, now_us - offer.lead_us, offer.size, self._due_us(), now_us)

        has_slot = offer.size + offer.newcomers > 0 and mine.due_us <= now_us and self._is_first(worker, mine)
        first_wait_us = max(options.interval_us if has_slot else 0, self._due_us() - now_us)
        slots_in_time = options.slots_in_time(first_wait_us)
        places = min(options.capacity, slots_in_time) - waiting - max(offer.size - has_slot, 0)
        newcomer_has_slot = has_slot and offer.size == 0  # this newcomer needs no place in the queue
        admitted = min(max(places, 0) + newcomer_has_slot, offer.newcomers)
        if has_slot:
            self._slots += 1
            self._next_before_us, self._next_us = self._next_us, now_us + options.interval_us

        size, due_us = offer.size + admitted - has_slot, self._due_us()
        if size:
            expires_us = max(now_us, due_us) + options.grace_us
            self._queues[worker] = replace(mine, size=size, due_us=due_us, expires_us=expires_us)
        wait_us = due_us - now_us if due_us > now_us else options.poll_us
        return SlotDecision(
            admitted,
            Slot(self, self._slots) if has_slot else None,
            self._policy,
            wait_us,
            options.retry_after(waiting + size, wait_us),
            options.max_wait_seconds if slots_in_time < options.capacity else None,
        )

    async def give_back(self, slot: Slot) -> None:
        """Take back a slot that was not used, if it is the last one assigned."""
        if slot.number == self._slots:
            self._next_us = self._next_before_us

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`."""
        self._not_before_us = max(self._not_before_us, self._now_us() + round(seconds * 1e6))

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on."""
        self._policy = policy

    async def status(self) -> PaceStatus:
        """Return the state of the queue."""
        now_us = self._now_us()
        queues = self._live(now_us).values()
        return PaceStatus(
            policy=self._policy,
            size=sum(queue.size for queue in queues),
            capacity=self._options.capacity,
            oldest_age_seconds=max(((now_us - queue.arrived_us) / 1e6 for queue in queues), default=None),
            next_slot_seconds=max(0, self._due_us() - now_us) / 1e6,
        )

    def _is_first(self, worker: str, mine: _WorkerQueue) -> bool:
        rank, now_us = (mine.rank(self._policy), worker), self._now_us()
        # If this slot was given back, workers that wait for a later slot make no offer for this one.
        current = ((queue, other) for other, queue in self._queues.items() if queue.due_us <= now_us)
        return all(rank < (queue.rank(self._policy), other) for queue, other in current)

    def _live(self, now_us: int) -> dict[str, _WorkerQueue]:
        return {worker: queue for worker, queue in self._queues.items() if queue.expires_us > now_us}

    def _due_us(self) -> int:
        return max(self._next_us, self._not_before_us)

    def _now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)
