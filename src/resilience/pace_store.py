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
`PaceStore` is the port; its form for one process is in `memory_pace_store`.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

QueuePolicy: TypeAlias = Literal["fifo", "priority"]
"""Who is next: who came first, or whose priority, aged by waiting, is the lowest."""

MAX_SECONDS = 86_400.0
"""The longest of any duration here."""


@dataclass(frozen=True, slots=True)
class PacedQueueOptions:
    """How fast a line moves, how long it may be, and who is next.

    Attributes:
        interval_seconds: At most one call starts in this time.
        capacity: Callers that may be in line, at least 1. One whose turn comes at once is never in line. Nor
            is one that comes when those in line take every turn within `max_wait_seconds`.
        max_wait_seconds: The longest a caller stays in line.
        aging_seconds: Waiting this long is worth one level of priority.
        policy: Who is next, until another policy is set.

    Interval and capacity are those of all workers together. Every duration is at least a millisecond and at
    most a day.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
    """

    interval_seconds: float = 1.0
    capacity: int = 100
    max_wait_seconds: float = 60.0
    aging_seconds: float = 10.0
    policy: QueuePolicy = "fifo"

    def __post_init__(self) -> None:
        for duration in ("interval_seconds", "max_wait_seconds", "aging_seconds"):
            value = getattr(self, duration)
            if not 0.001 <= value <= MAX_SECONDS:
                raise ValueError(f"{duration} must be between 0.001 and {MAX_SECONDS:g}, not {value}")
        if not self.capacity >= 1 or self.capacity % 1:
            raise ValueError(f"capacity must be whole and at least 1, not {self.capacity}")
        check_policy(self.policy)

    @property
    def interval_us(self) -> int:
        """The interval in whole microseconds."""
        return round(self.interval_seconds * 1e6)

    @property
    def max_wait_us(self) -> int:
        """The longest wait in whole microseconds."""
        return round(self.max_wait_seconds * 1e6)

    @property
    def grace_us(self) -> int:
        """How late a worker may be to ask for its turn: a tenth of the interval, from 50 ms to a second."""
        return min(max(self.interval_us // 10, 50_000), 1_000_000)

    @property
    def poll_us(self) -> int:
        """How soon to ask again while another worker is due: a fiftieth of the interval, from 5 to 25 ms."""
        return min(max(self.interval_us // 50, 5_000), 25_000)

    def share(self, workers: int) -> "PacedQueueOptions":
        """Return the options of each of `workers` that can't confer: together they keep to these."""
        return replace(
            self,
            interval_seconds=self.interval_seconds * workers,
            capacity=max(1, self.capacity // workers),
        )

    def turns_in_time(self, wait_us: int) -> int:
        """Return how many callers in line have their turns within `max_wait_seconds`.

        Args:
            wait_us: Time until the first of them has its turn.
        """
        return max((self.max_wait_us - wait_us) // self.interval_us + 1, 0)

    def retry_after(self, size: int, wait_us: int) -> float:
        """Return when a caller who finds no place in the line should come again.

        Then there is a place, and one far enough in front that its turn comes within `max_wait_seconds`.

        Args:
            size: Callers in line.
            wait_us: Time until the first of them has its turn.
        """
        too_many = size - self.capacity
        place_in_us = wait_us + too_many * self.interval_us if too_many >= 0 else 0
        turn_in_us = wait_us + size * self.interval_us
        return max(place_in_us, turn_in_us - self.max_wait_us) / 1e6


def check_policy(policy: str) -> None:
    """Raise ValueError unless `policy` is one."""
    if policy not in {"fifo", "priority"}:
        raise ValueError(f"policy must be 'fifo' or 'priority', not {policy!r}")


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
