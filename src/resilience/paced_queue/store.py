"""The port that assigns the slots of a paced queue: one in each interval for all workers together.

Each worker keeps its own callers in a queue. The workers share only a small state: when the next slot is due,
by which policy it is assigned, and one *offer* for each worker that has callers. The offer says how many
callers wait, and how long the first of them has waited. A slot goes to the worker whose offer has the lowest
rank.

**Rank.** By "fifo", the rank of a caller is the time of its arrival. By "priority", it is that time plus
`aging_seconds` for each level of priority; a lower level is sooner. Both ranks are fixed on arrival, so
waiting needs no updates, and the policy can change without a caller losing its place. No caller starves: a
caller of level p is overtaken by one of a lower level q only if that one arrives within (p - q) ·
`aging_seconds` after it. So each `aging_seconds` of waiting compensates for one level.

**Liveness.** A worker with callers asks again when the slot that it waits for is due. If it does not, because
its process ended, the others wait for a short grace period. After that its offer and its callers no longer
count.

Times are whole microseconds. Offers carry ages and not times of day, because the clocks of workers differ.
The form for one process is in `memory`.
"""

from dataclasses import dataclass
from typing import Protocol

from .options import QueuePolicy


@dataclass(frozen=True, slots=True)
class Offer:
    """The state of one worker's queue.

    Attributes:
        size: The callers in the queue; 0 withdraws the worker's last offer.
        newcomers: The callers that want a place in the queue, in order of arrival.
        age_us: How long the caller that came first has waited.
        lead_us: How long the first caller by priority has waited, less `aging_seconds` for each level of its
            priority. The higher, the sooner; it may be negative.

    Both ages are of callers in the queue. Only where there is none, they are of the first newcomer.
    """

    size: int
    newcomers: int = 0
    age_us: int = 0
    lead_us: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to start one call now.

    Attributes:
        origin: The store that assigned the slot. No other store can take it back.
        number: Counted from 1, over all workers.
    """

    origin: "PaceStore"
    number: int


@dataclass(frozen=True, slots=True)
class SlotDecision:
    """The store's answer to an offer.

    Attributes:
        admitted: The number of newcomers that have a place now, first come first; the others have none.
        slot: Goes to the first caller by `policy`, of those in the queue and those admitted; None: no slot
            yet.
        policy: The present policy.
        wait_us: When the worker must ask again, if nothing changes before.
        retry_after: Seconds after which a newcomer without a place should come again.
        late_after: Why newcomers have no place. None: the queue is full. Else their slots would not come
            within this number of seconds, the longest wait.
    """

    admitted: int
    slot: Slot | None
    policy: QueuePolicy
    wait_us: int
    retry_after: float
    late_after: float | None = None


@dataclass(frozen=True, slots=True)
class PaceStatus:
    """The queue, over all workers.

    Attributes:
        policy: Which caller is next.
        size: The callers in the queue.
        capacity: The largest possible `size`.
        oldest_age_seconds: How long the caller that came first has waited; None where no caller waits.
        next_slot_seconds: The time until the next slot is due; 0 where it is due now.
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
        """Record the offer of `worker`, admit its newcomers, and assign a slot to it if it is next.

        A slot is assigned when it is due and no other worker's offer has a lower rank; of equal ranks, the
        lower worker's name counts. A worker has one such question under way at a time.
        """
        ...

    async def give_back(self, slot: Slot) -> None:
        """Take back a slot that was not used: the next one is due as if it had not been assigned.

        If another slot was assigned since, this one is lost. A worker that waits for the next slot learns of
        the change when it asks again; until then it does not hold up others.
        """
        ...

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`. It never makes a slot due sooner."""
        ...

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on."""
        ...

    async def status(self) -> PaceStatus:
        """Return the state of the queue. Changes nothing."""
        ...
