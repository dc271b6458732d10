"""An answer of the cache, and a read of one that has begun."""

from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

Outcome = Literal["hit", "miss", "updating", "stale"]


class Answer(NamedTuple):
    """The answer to a caller.

    Attributes:
        body: The bytes.
        outcome: "hit": the store had a fresh entry. "miss": the answer was computed while the caller waited,
            in this worker or another. "updating": the entry has expired and the next one is being computed.
            "stale": the computation failed, and this is the last good answer. (nginx uses these terms in
            `$upstream_cache_status`.)
        age_seconds: The time since the answer was stored, in seconds.
        error: The error of the computation if the outcome is "stale", otherwise None.
    """

    body: bytes
    outcome: Outcome
    age_seconds: float = 0.0
    error: BaseException | None = None

    @property
    def is_old(self) -> bool:
        """Whether the answer is the last good one, because a newer answer is not available."""
        return self.outcome in {"updating", "stale"}


class CacheRead(NamedTuple):
    """A read that has begun.

    Attributes:
        result: Returns the answer. It raises the errors of `ReadThroughCache.get`. Call it at most once.
    """

    result: Callable[[], Coroutine[Any, Any, Answer]]
