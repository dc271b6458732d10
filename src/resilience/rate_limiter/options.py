"""What a rate limiter permits, and how its policy waits."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Algorithm: TypeAlias = Literal[
    "sliding_window_log", "sliding_window_counter", "fixed_window", "token_bucket", "leaky_bucket"
]


_US = 1_000_000
_TICK_SECONDS = 1 / _US


MAX_WINDOW_SECONDS = 1e8
"""The longest window, some three years: every figure of a quota is then exact in the scripts too."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much in how long.

    Attributes:
        limit: Units that fit into one window, at least 1 and at most one a microsecond. It is also how many
            a bucket lets through at once.
        window_seconds: Length of the window; above 0 and at most `MAX_WINDOW_SECONDS`.

    Raises:
        ValueError: One of them is out of range.
    """

    limit: int
    window_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.window_seconds <= MAX_WINDOW_SECONDS:
            longest = f"{MAX_WINDOW_SECONDS:g}"
            raise ValueError(
                f"window_seconds must be above 0 and at most {longest}, not {self.window_seconds}"
            )
        if self.limit % 1 or not 1 <= self.limit <= self.window_us:
            raise ValueError(
                f"limit must be whole, at least 1 and at most one a microsecond, not {self.limit}"
            )

    @property
    def window_us(self) -> int:
        """The window in whole microseconds."""
        return round(self.window_seconds * _US)

    def share(self, workers: int) -> "Quota":
        """Return the quota of each of `workers` that cannot agree: together they keep to this one.

        Only where they are more than the limit they let more through, one each.
        """
        return replace(self, limit=max(1, self.limit // workers))

    def check(self, cost: int) -> None:
        """Raise ValueError when `cost` is below 1, or above the limit and so would never be let through."""
        if not 1 <= cost <= self.limit:
            raise ValueError(f"cost must be between 1 and the limit of {self.limit}, not {cost}")


@dataclass(frozen=True, slots=True)
class RateLimitOptions:
    """How a `RateLimit` waits.

    Attributes:
        key: Whose quota its calls take from.
        max_wait_seconds: The longest a call waits for its unit; finite, at least 0, which is not to wait.
        max_waiting: Calls that may wait for their units, at least 1.
    """

    key: str
    max_wait_seconds: float = 1.0
    max_waiting: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_seconds < math.inf:
            raise ValueError(f"max_wait_seconds must be finite and at least 0, not {self.max_wait_seconds}")
        if not self.max_waiting >= 1:
            raise ValueError(f"max_waiting must be at least 1, not {self.max_waiting}")
