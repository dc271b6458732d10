"""The rate limiters as plainly as they can be said: keep every hit let through, go through all each time.

Each algorithm is one function, the units for which there is room at a time; when there will be room is found
by looking. Times are in whole µs.
"""

import math
from bisect import bisect_left
from collections import Counter
from fractions import Fraction

from src.resilience.clock import Clock
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.store import Decision

Hits = list[tuple[int, int]]
"""When and how much, in order."""


def _log(hits: Hits, at: int, limit: int, window: int) -> int:
    return limit - sum(cost for then, cost in hits if at - window < then)


def _counter(hits: Hits, at: int, limit: int, window: int) -> int:
    first, counts = at, Counter()
    for then, cost in hits:
        if not counts or (then - first) // window > max(counts) + 1:  # neither window in sight holds anything
            first, counts = then, Counter()
        counts[(then - first) // window] += cost
    number, gone = divmod(at - first, window)
    return math.floor(limit - counts[number] - Fraction(counts[number - 1] * (window - gone), window))


def _fixed(hits: Hits, at: int, limit: int, window: int) -> int:
    start, used = -math.inf, 0
    for then, cost in hits:
        if then >= start + window:
            start, used = then, 0
        used += cost
    return limit - used if at < start + window else limit


def _bucket(hits: Hits, at: int, limit: int, window: int) -> int:
    interval = math.ceil(window / limit)
    level = full = limit * interval
    last = 0
    for then, cost in [*hits, (at, 0)]:
        level = min(full, level + then - last) - cost * interval
        last = then
    return level // interval


_ROOM = {
    "sliding_window_log": _log,
    "sliding_window_counter": _counter,
    "fixed_window": _fixed,
    "token_bucket": _bucket,
    "leaky_bucket": _bucket,  # is to decide alike, unit for unit
}


class RateLimiterModel:
    """A rate limiter that forgets nothing."""

    def __init__(self, algorithm: Algorithm, quota: Quota, clock: Clock) -> None:
        self._room = _ROOM[algorithm]
        self._quota = quota
        self._clock = clock
        self._hits: dict[str, Hits] = {}

    @property
    def now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)

    def units(self, key: str) -> list[int]:
        """When each unit of `key` was let through."""
        return [then for then, cost in self._hits.get(key, []) for _ in range(cost)]

    def hit(self, key: str, cost: int = 1) -> Decision:
        wait = self._us_until(key, cost)
        if wait == 0:
            self._hits.setdefault(key, []).append((self.now_us, cost))
        return self._decision(key, wait)

    def peek(self, key: str, cost: int = 1) -> Decision:
        return self._decision(key, self._us_until(key, cost))

    def reset(self, key: str) -> None:
        self._hits.pop(key, None)

    def _decision(self, key: str, wait: int) -> Decision:
        limit = self._quota.limit
        reset_after = self._us_until(key, limit) / 1e6
        return Decision(wait == 0, limit, self._room_in(key, 0), wait / 1e6, reset_after)

    def _us_until(self, key: str, units: int) -> int:
        """Look for the first µs with room for so many; while nothing comes in, room only grows."""
        return bisect_left(
            range(3 * self._quota.window_us), units, key=lambda after: self._room_in(key, after)
        )

    def _room_in(self, key: str, after: int) -> int:
        hits = self._hits.get(key, [])
        return self._room(hits, self.now_us + after, self._quota.limit, self._quota.window_us)
