"""The pace of a paced queue, its length, and which caller is next."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

QueuePolicy: TypeAlias = Literal["fifo", "priority"]
"""Which caller is next: the one that came first, or the one with the lowest priority, aged by waiting."""


MAX_SECONDS = 86_400.0
"""The longest duration of any option."""


@dataclass(frozen=True, slots=True)
class PacedQueueOptions:
    """The pace of the queue, its length, and which caller is next.

    Attributes:
        interval_seconds: At most one call starts in this time.
        capacity: The callers that may wait in the queue, at least 1. A caller that gets its slot at once is
            never in the queue. A caller whose slot would come after `max_wait_seconds` has no place in it.
        max_wait_seconds: The longest time that a caller waits in the queue.
        aging_seconds: A wait of this time compensates for one level of priority.
        policy: Which caller is next, until another policy is set.

    Interval and capacity are for all workers together. Every duration is at least a millisecond and at most a
    day.

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
        """How late a worker may ask for its slot: a tenth of the interval, from 50 ms to a second."""
        return min(max(self.interval_us // 10, 50_000), 1_000_000)

    @property
    def poll_us(self) -> int:
        """When to ask again while another worker is next: a fiftieth of the interval, from 5 to 25 ms."""
        return min(max(self.interval_us // 50, 5_000), 25_000)

    def share(self, workers: int) -> "PacedQueueOptions":
        """Return the options of each of `workers` that cannot communicate: together they keep these."""
        return replace(
            self,
            interval_seconds=self.interval_seconds * workers,
            capacity=max(1, self.capacity // workers),
        )

    def slots_in_time(self, wait_us: int) -> int:
        """Return the number of callers that get their slots within `max_wait_seconds`.

        Args:
            wait_us: The time until the first of them gets its slot.
        """
        return max((self.max_wait_us - wait_us) // self.interval_us + 1, 0)

    def retry_after(self, size: int, wait_us: int) -> float:
        """Return the seconds after which a caller without a place should come again.

        By then there is a place whose slot comes within `max_wait_seconds`.

        Args:
            size: The callers in the queue.
            wait_us: The time until the first of them gets its slot.
        """
        too_many = size - self.capacity
        place_in_us = wait_us + too_many * self.interval_us if too_many >= 0 else 0
        slot_in_us = wait_us + size * self.interval_us
        return max(place_in_us, slot_in_us - self.max_wait_us) / 1e6


def check_policy(policy: str) -> None:
    """Raise ValueError unless `policy` is a `QueuePolicy`."""
    if policy not in {"fifo", "priority"}:
        raise ValueError(f"policy must be 'fifo' or 'priority', not {policy!r}")
