"""The port that assigns the slots of a paced queue: one in each interval for all workers together.

Each worker keeps its own callers in a queue. The workers share only a small state: when the next slot is due,
by which policy it is assigned, and one *offer* for each worker that has callers. The offer contains the
number of waiting callers, and the time that the first of them has waited. A slot goes to the worker whose
offer has the lowest rank.

**Rank.** With "fifo", the rank of a caller is its arrival time. With "priority", the rank is the arrival time
plus `aging_seconds` for each level of priority, so that a lower level is served sooner. Both ranks are fixed
on arrival. Waiting therefore needs no updates, and the policy can change while callers wait. No caller
starves: a caller of level p is overtaken by a caller of a lower level q only if that caller arrives within (p
- q) · `aging_seconds`.

**Liveness.** A worker with callers sends its next offer when the slot that it waits for is due. If its
process has ended, the other workers wait for a short grace period. Then its offer and its callers no longer
count.

Times are whole microseconds. Offers contain durations and not times of day, because the clocks of workers
differ. `memory` and `redis` implement the port.
"""

from dataclasses import dataclass
from typing import Protocol

from .options import QueuePolicy


@dataclass(frozen=True, slots=True)
class Offer:
    """The state of one worker's queue.

    Attributes:
        size: The number of callers in the queue. 0 withdraws the last offer of the worker.
        newcomers: The number of callers that are not in the queue yet.
        age_us: The wait so far of the earliest caller.
        lead_us: The wait so far of the first caller by priority, less `aging_seconds` for each level of its
            priority. It may be negative. The highest lead is served first.

    `age_us` and `lead_us` are those of callers in the queue, or of the first newcomer if the queue is empty.
    """

    size: int
    newcomers: int = 0
    age_us: int = 0
    lead_us: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to start one call now.

    Attributes:
        origin: The store that assigned the slot. Only this store can take the slot back.
        number: The number of the slot, counted from 1 over all workers.
    """

    origin: "PaceStore"
    number: int


@dataclass(frozen=True, slots=True)
class SlotDecision:
    """The store's answer to an offer.

    Attributes:
        admitted: The number of newcomers that were admitted to the queue, in order of arrival.
        slot: The slot for the first caller by `policy`, including the admitted newcomers. None: no slot yet.
        policy: The current policy.
        wait_us: The time until the next offer of the worker, if its queue does not change before.
        retry_after: Seconds after which a refused newcomer should try again.
        late_after: The reason for refused newcomers. None: the queue is full. A number: their slots would not
            come within this number of seconds, which is the longest wait.
    """

    admitted: int
    slot: Slot | None
    policy: QueuePolicy
    wait_us: int
    retry_after: float
    late_after: float | None = None


@dataclass(frozen=True, slots=True)
class PaceStatus:
    """The status of the queue over all workers.

    Attributes:
        policy: The order of the callers.
        size: The number of callers in the queue.
        capacity: The largest possible `size`.
        oldest_age_seconds: The wait so far of the earliest caller. None: no caller waits.
        next_slot_seconds: The time until the next slot is due. 0: a slot is due now.
    """

    policy: QueuePolicy
    size: int
    capacity: int
    oldest_age_seconds: float | None
    next_slot_seconds: float


class PaceStore(Protocol):
    """Assigns the slots of one queue. Each method is one atomic decision.

    All workers that share a queue must use the same options for it. A store that can be unavailable raises
    its own error then.
    """

    async def ask(self, worker: str, offer: Offer) -> SlotDecision:
        """Record the offer of `worker`, admit its newcomers, and assign a slot to the worker if it is next.

        A slot is assigned when it is due and no other worker's offer has a lower rank. If two ranks are
        equal, the name of the worker decides. A worker sends one offer at a time.
        """
        ...

    async def give_back(self, slot: Slot) -> None:
        """Take back an unused slot. The next slot is then due as if this one had not been assigned.

        If another slot was assigned since, this slot is lost. A worker that waits for the next slot gets the
        new due time with the reply to its next offer. Until then it does not delay other workers.
        """
        ...

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`. It never makes a slot due sooner."""
        ...

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on."""
        ...

    async def status(self) -> PaceStatus:
        """Return the status of the queue, without a change to it."""
        ...
