"""The options of a paced queue: its pace, its length, and the order of its callers."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

QueuePolicy: TypeAlias = Literal["fifo", "priority"]
"""The order of callers: by arrival, or by priority. The lowest number is first, and waiting lowers it."""


MAX_SECONDS = 86_400.0
"""The longest duration of any option."""


@dataclass(frozen=True, slots=True)
class PacedQueueOptions:
    """The pace of a queue, its length, and the order of its callers.

    Attributes:
        interval_seconds: At most one call starts in this time.
        capacity: The largest number of callers in the queue, at least 1. A caller that gets its slot at once
            does not count. A caller whose slot would come after `max_wait_seconds` is rejected.
        max_wait_seconds: The longest time that a caller waits in the queue.
        aging_seconds: A wait of this time compensates for one level of priority.
        policy: The order of the callers, until another policy is set.

    Interval and capacity apply to all workers together. Every duration is at least a millisecond and at most
    a day.

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
        """The time after which a due slot goes to another worker: a tenth of the interval, 50 ms to 1 s."""
        return min(max(self.interval_us // 10, 50_000), 1_000_000)

    @property
    def poll_us(self) -> int:
        """The time between offers while another worker is next: a fiftieth of the interval, 5 to 25 ms."""
        return min(max(self.interval_us // 50, 5_000), 25_000)

    def share(self, workers: int) -> "PacedQueueOptions":
        """Return the options of one of `workers` that cannot communicate: together they keep this pace."""
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
        """Return the seconds after which a rejected caller should try again.

        By then the queue has a place whose slot comes within `max_wait_seconds`.

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
