"""Where the turns of paced queues are given out: one an interval to all workers together, and to whom.

Each worker keeps its own callers in line. What the workers share is small: when the next turn is due, by
which policy it goes, and one *offer* for each worker that has callers: how many, and how long its first one
has waited. A turn goes to the worker whose offer ranks lowest.

**Rank.** By "fifo" a caller's rank is the time it arrived. By "priority" it is that time plus `aging_seconds`
for each level of priority, of which a lower one is sooner. Either is settled on arrival, so waiting costs no
upkeep and the policy can be switched without anybody losing a place. And nobody starves: a caller of level p
is overtaken by one of a lower level q only if that arrives within (p - q) · `aging_seconds` after it; each
`aging_seconds` of waiting make good for a level.

**Liveness.** A worker with callers asks again when the turn it waits for is due. One that does not, since it
died, is waited for a short grace, then its offer and its callers no longer count.

Time is reckoned in whole microseconds. Ages and not times of day are told, since workers' clocks differ.
`PaceStore` is the port; its form for one process is in `memory`.
"""

from dataclasses import dataclass
from typing import Protocol

from .options import QueuePolicy


@dataclass(frozen=True, slots=True)
class Offer:
    """How one worker's line stands.

    Attributes:
        size: Callers in it; 0 takes the worker's last offer back.
        newcomers: Callers who want a place in it, in order of arrival.
        age_us: How long the one who came first has waited.
        lead_us: How long the first by priority has waited, less `aging_seconds` for each level of it. The
            higher, the sooner; it may be negative.

    Both are of callers in line. Only where there is none they are of the first newcomer.
    """

    size: int
    newcomers: int = 0
    age_us: int = 0
    lead_us: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to start one call now.

    Attributes:
        origin: The store that gave it. No other can make sense of it.
        number: Counted up from 1, over all workers.
    """

    origin: "PaceStore"
    number: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker is told of its offer.

    Attributes:
        admitted: So many of the newcomers have a place, the first of them; the others have none.
        turn: Goes to whoever is first by `policy`, of those in line and those admitted.
        policy: The one that holds.
        wait_us: When to ask again, should nothing change before.
        retry_after: Seconds after which a newcomer who has no place should come again.
        late_after: Why newcomers have no place. None: the line is full. Else their turns would not come
            within this many seconds, the longest wait.
    """

    admitted: int
    turn: Turn | None
    policy: QueuePolicy
    wait_us: int
    retry_after: float
    late_after: float | None = None


@dataclass(frozen=True, slots=True)
class PaceStatus:
    """The line, over all workers.

    Attributes:
        policy: Who is next.
        size: Callers in line.
        capacity: The most there may be.
        oldest_age_seconds: How long the one who came first has waited; None where nobody waits.
        next_turn_seconds: Until the next turn is due; 0 where it is.
    """

    policy: QueuePolicy
    size: int
    capacity: int
    oldest_age_seconds: float | None
    next_turn_seconds: float


class PaceStore(Protocol):
    """Gives out the turns of one line. Each method is one atomic decision.

    Everybody who shares a line must bring the same options for it. A store that can be away raises its own
    error then.
    """

    async def ask(self, worker: str, offer: Offer) -> Verdict:
        """Take note of how the line of `worker` stands, give its newcomers places and perhaps it a turn.

        A turn is given when it is due and no other worker's offer ranks lower, ties going to the lower name.
        A worker has one such question under way at a time.
        """
        ...

    async def give_back(self, turn: Turn) -> None:
        """Take back a turn that was not used: the next one is due as if it had not been given.

        If another was given since, it is lost. A worker that was told to wait for the next one hears of this
        when it asks again; until then it stands in nobody's way.
        """
        ...

    async def postpone(self, seconds: float) -> None:
        """Give no turn for `seconds`. It never brings one forward."""
        ...

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Give turns by `policy` from now on."""
        ...

    async def status(self) -> PaceStatus:
        """Return how the line stands. Changes nothing."""
        ...
