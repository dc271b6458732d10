"""How long a read-through cache keeps, serves and refreshes an answer."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How long things last. Times are in seconds, finite, and at least a millisecond unless 0 is allowed.

    Attributes:
        ttl_seconds: How long an entry is fresh.
        stale_seconds: Age up to which a last good answer may stand in for a failed computation; 0 for never.
            Of use only when longer than `ttl_seconds`.
        lease_seconds: How long the lease of a computation lasts unless it is renewed, and so how long other
            workers wait for one that died.
        computation_seconds: How long a computation's lease is renewed. What takes longer is not stored, so
            this should be above the longest to be expected.
        patience_seconds: How long a caller waits for a computation, counted from its beginning, while there
            is a last good answer that ran out and was not invalidated; then that is served in the meantime. 0
            for not at all.
        early_refresh_beta: How eagerly entries are refreshed before they run out: 1 is optimal by the paper,
            more is earlier, 0 is never.
        revalidate_seconds: For how long after its end an entry is still answered with while a new one is
            computed in the background; 0 for not at all.
        negative_seconds: For how long a computation that failed is not begun again; 0 for not at all.
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
        """Age up to which an answer is served without regard to how its next computation goes."""
        return self.ttl_seconds + self.revalidate_seconds

    @property
    def copy_seconds(self) -> float:
        """Age up to which a last good copy is of use; 0 for none. An entry may outlive it."""
        return max(self.stale_seconds, self.served_seconds) if self.revalidate_seconds else self.stale_seconds


_ABOVE_ZERO = ("ttl_seconds", "lease_seconds", "computation_seconds")
_FROM_ZERO = (
    "stale_seconds", "patience_seconds", "early_refresh_beta", "revalidate_seconds", "negative_seconds",
)  # fmt: skip
