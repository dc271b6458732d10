"""The quota of a rate limiter, and how long the calls of its policy wait."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Algorithm: TypeAlias = Literal[
    "sliding_window_log", "sliding_window_counter", "fixed_window", "token_bucket", "leaky_bucket"
]


_US = 1_000_000
_TICK_SECONDS = 1 / _US


MAX_WINDOW_SECONDS = 1e8
"""The longest window, some three years: every figure of a quota is then exact in the scripts too."""
MAX_QUOTAS = 3
"""The largest number of quotas of one limiter, which bounds the work of a decision."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A number of units in a time.

    Attributes:
        limit: Units that fit into one window, at least 1 and at most one per microsecond. It is also the
            number of units that a bucket allows at once.
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

    @property
    def unit_us(self) -> int:
        """The time in which a bucket regains one unit, in whole microseconds, rounded up."""
        return -(-self.window_us // self.limit)

    def share(self, workers: int) -> "Quota":
        """Return the quota of each of `workers` that cannot communicate: together they keep this quota.

        If there are more workers than units, each worker gets one unit, so together they allow more.
        """
        return replace(self, limit=max(1, self.limit // workers))

    def check(self, cost: int) -> None:
        """Raise ValueError if `cost` is below 1, or above the limit and so could never be allowed."""
        if not 1 <= cost <= self.limit:
            raise ValueError(f"cost must be between 1 and the limit of {self.limit}, not {cost}")


def quotas_in(quotas: Quota | Sequence[Quota]) -> tuple[Quota, ...]:
    """Return the quotas of a limiter, given as one quota or as several.

    Raises:
        ValueError: There is none, or there are more than `MAX_QUOTAS`.
    """
    several = (quotas,) if isinstance(quotas, Quota) else tuple(quotas)
    if not 1 <= len(several) <= MAX_QUOTAS:
        raise ValueError(f"a limiter has between 1 and {MAX_QUOTAS} quotas, not {len(several)}")
    return several


def check_cost(quotas: Sequence[Quota], cost: int) -> None:
    """Raise ValueError if `cost` is below 1, or above a limit and so could never be allowed."""
    for quota in quotas:
        quota.check(cost)


@dataclass(frozen=True, slots=True)
class RateLimitOptions:
    """The units that each call of a `RateLimit` takes, and how long it waits for them.

    Attributes:
        key: The key whose quota the calls use.
        max_wait_seconds: The longest time that a call waits for its units; finite and at least 0. With 0, no
            call waits.
        max_waiting: Calls that may wait for their units, at least 1.
        cost: The units that each call takes, at least 1 and at most the smallest limit of the quotas.
    """

    key: str
    max_wait_seconds: float = 1.0
    max_waiting: int = 1000
    cost: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_seconds < math.inf:
            raise ValueError(f"max_wait_seconds must be finite and at least 0, not {self.max_wait_seconds}")
        if not self.max_waiting >= 1:
            raise ValueError(f"max_waiting must be at least 1, not {self.max_waiting}")
        if not self.cost >= 1:
            raise ValueError(f"cost must be at least 1, not {self.cost}")
