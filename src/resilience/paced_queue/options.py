"""How fast a paced queue moves, how long it may be, and which caller is next."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

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
