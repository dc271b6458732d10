"""The options of a read-through cache: how long it keeps, serves and refreshes an answer."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """The options. Times are in seconds and finite. They are at least 0.001, unless 0 is allowed.

    Attributes:
        ttl_seconds: The time for which an entry is fresh.
        stale_seconds: The age up to which the last good answer may replace a failed computation. It has an
            effect only if it is above `ttl_seconds`. 0: never.
        lease_seconds: The length of a computation's lease without a renewal. If a worker dies while it
            computes, the others wait this long.
        computation_seconds: The longest time for which a computation's lease is renewed. The answer of a
            longer computation is not stored, so set this above the longest expected computation.
        patience_seconds: The longest time that a caller waits for a computation, counted from the beginning
            of the computation. The caller then gets the last good answer, if its entry has expired and was
            not invalidated. 0: such a caller does not wait.
        early_refresh_beta: The factor of early refreshes. 1 is optimal according to the paper that `policy`
            cites. A larger factor refreshes earlier. 0: entries are not refreshed before they expire.
        revalidate_seconds: The time after the expiry of an entry in which the entry is still served, while a
            new one is computed in the background. 0: an expired entry is not served this way.
        negative_seconds: The time after a failed computation in which it is not repeated. 0: it is repeated
            at once.
    """

    ttl_seconds: float = 300.0
    stale_seconds: float = 3600.0
    lease_seconds: float = 2.0
    computation_seconds: float = 30.0
    patience_seconds: float = 1.0
    early_refresh_beta: float = 1.0
    revalidate_seconds: float = 0.0
    negative_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in _ABOVE_ZERO:
            if not 0.001 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0.001, not {getattr(self, name)}")
        for name in _FROM_ZERO:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, not {getattr(self, name)}")

    @property
    def served_seconds(self) -> float:
        """The age up to which an answer is served before the next computation has finished."""
        return self.ttl_seconds + self.revalidate_seconds

    @property
    def copy_seconds(self) -> float:
        """The age up to which the last good copy may be served. 0: no copy is needed.

        An entry may be older.
        """
        return max(self.stale_seconds, self.served_seconds) if self.revalidate_seconds else self.stale_seconds


_ABOVE_ZERO = ("ttl_seconds", "lease_seconds", "computation_seconds")
_FROM_ZERO = (
    "stale_seconds", "patience_seconds", "early_refresh_beta", "revalidate_seconds", "negative_seconds",
)  # fmt: skip
