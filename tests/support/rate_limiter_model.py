"""The simplest rate limiters: they keep every allowed hit, and look at all hits for each decision.

Each algorithm is one function, which returns the number of free units at a time. A search over all times
finds when enough units are free. Times are in whole µs.
"""

import math
from bisect import bisect_left
from collections import Counter
from fractions import Fraction

from src.resilience.clock import Clock
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.store import Decision, combine

Hits = list[tuple[int, int, Quota]]
"""The time, the cost and the quota of each hit, in order of time."""


def _log(hits: Hits, at: int, quota: Quota) -> int:
    return quota.limit - sum(cost for then, cost, _ in hits if at - quota.window_us < then)


def _windows(hits: Hits, window: int) -> tuple[int, Counter[int]]:
    """Return the start of the first of the latest consecutive windows, and the used units of each window."""
    first, counts = 0, Counter()
    for then, cost, _ in hits:
        if not counts or (then - first) // window > max(counts) + 1:  # at least one empty window lies between
            first, counts = then, Counter()
        counts[(then - first) // window] += cost
    return first, counts


def _counter(hits: Hits, at: int, quota: Quota) -> int:
    window = quota.window_us
    first, counts = _windows(hits, window)
    number, gone = divmod(at - first, window)
    return math.floor(quota.limit - counts[number] - Fraction(counts[number - 1] * (window - gone), window))


def _last_window(hits: Hits, window: int) -> tuple[float, int]:
    """Return the start of the last fixed window, and its used units."""
    start, used = -math.inf, 0
    for then, cost, _ in hits:
        if then >= start + window:
            start, used = then, 0
        used += cost
    return start, used


def _fixed(hits: Hits, at: int, quota: Quota) -> int:
    start, used = _last_window(hits, quota.window_us)
    return quota.limit - used if at < start + quota.window_us else quota.limit


def _bucket(hits: Hits, at: int, quota: Quota) -> int:
    debt, last, interval = 0, 0, quota.unit_us
    for then, cost, by in [*hits, (at, 0, quota)]:
        debt = max(0, debt - (then - last))
        # A part of a unit becomes free at its former time or after one new interval, whichever is earlier.
        if by.unit_us != interval:
            units, part = divmod(debt, interval)
            debt = units * by.unit_us + min(part, by.unit_us)
        debt = min(debt, by.limit * by.unit_us) + cost * by.unit_us
        last, interval = then, by.unit_us
    return (quota.limit * quota.unit_us - debt) // quota.unit_us


_ROOM = {
    "sliding_window_log": _log,
    "sliding_window_counter": _counter,
    "fixed_window": _fixed,
    "token_bucket": _bucket,
    "leaky_bucket": _bucket,  # must decide like the token bucket
}


class _QuotaModel:
    """One quota of a limiter."""

    def __init__(self, algorithm: Algorithm, quota: Quota) -> None:
        self.algorithm = algorithm
        self.quota = quota
        self.hits: dict[str, Hits] = {}

    def room(self, key: str, at: int) -> int:
        """Return the number of free units; below 0 if the limit was lowered."""
        return _ROOM[self.algorithm](self.hits.get(key, []), at, self.quota)

    def us_until(self, key: str, units: int, now: int) -> int:
        """Return the µs until `units` are free. Without hits, the number of free units only grows."""
        return bisect_left(
            range(3 * self.quota.window_us), units, key=lambda after: self.room(key, now + after)
        )

    def decision(self, key: str, wait: int, now: int) -> Decision:
        reset = self.us_until(key, self.quota.limit, now)
        room = max(0, self.room(key, now))
        return Decision(wait == 0, self.quota, room, wait / 1e6, reset / 1e6)

    def spend(self, key: str, cost: int, now: int) -> None:
        self.hits.setdefault(key, []).append((now, cost, self.quota))

    def see(self, key: str, now: int) -> None:
        """Apply what a decision changes: expired hits are dropped, and a bucket uses the current quota."""
        hits = self.hits.get(key)
        if hits and self.algorithm == "sliding_window_log":
            self.hits[key] = [hit for hit in hits if now - self.quota.window_us < hit[0]]
        elif hits and "bucket" in self.algorithm and hits[-1][2] != self.quota:
            hits.append((now, 0, self.quota))

    def change(self, quota: Quota) -> None:
        """Change the quota. For each key, keep the windows of its last hit with their counts."""
        old, self.quota = self.quota, quota
        for key, hits in self.hits.items():
            if self.algorithm == "fixed_window" and hits:
                start, used = _last_window(hits, old.window_us)
                self.hits[key] = [(int(start), used, quota)]
            elif self.algorithm == "sliding_window_counter" and hits:
                first, counts = _windows(hits, old.window_us)
                number = max(counts)
                start = first + number * old.window_us
                self.hits[key] = [
                    (start - quota.window_us, 0, quota),
                    (start - 1, counts[number - 1], quota),
                    (start, counts[number], quota),
                ]


class RateLimiterModel:
    """A rate limiter that keeps every hit.

    Attributes:
        quotas: The quotas by which it decides.
    """

    def __init__(self, algorithm: Algorithm, quotas: list[Quota], clock: Clock) -> None:
        self._algorithm = algorithm
        self._all_parts: list[_QuotaModel] = []
        self._clock = clock
        self.change(quotas)

    @property
    def now_us(self) -> int:
        return round(self._clock.monotonic() * 1e6)

    @property
    def _parts(self) -> list[_QuotaModel]:
        return self._all_parts[: len(self.quotas)]

    def units(self, key: str) -> list[int]:
        """Return the times at which the units of `key` were taken, since the last change of the quotas."""
        return self._units.get(key, [])

    def hit(self, key: str, cost: int = 1) -> Decision:
        self._see(key)
        waits = self._waits(key, cost)
        if not any(waits):
            for part in self._parts:
                part.spend(key, cost, self.now_us)
            self._units.setdefault(key, []).extend([self.now_us] * cost)
        return self._decision(key, waits)

    def peek(self, key: str, cost: int = 1) -> Decision:
        self._see(key)
        return self.foresee(key, cost)

    def foresee(self, key: str, cost: int = 1) -> Decision:
        """Return the decision on a hit, without a change of the model."""
        return self._decision(key, self._waits(key, cost))

    def reset(self, key: str) -> None:
        self._units.pop(key, None)
        for part in self._all_parts:
            part.hits.pop(key, None)

    def change(self, quotas: list[Quota]) -> None:
        """Decide by other quotas. The counts of dropped quotas are kept."""
        self.quotas = quotas
        self._units: dict[str, list[int]] = {}
        for part, quota in zip(self._all_parts, quotas, strict=False):
            part.change(quota)
        self._all_parts += (_QuotaModel(self._algorithm, quota) for quota in quotas[len(self._all_parts) :])

    def forget_dropped(self) -> None:
        self._all_parts = self._parts

    def forget_free(self, key: str) -> list[int]:
        """Remove the key from each quota without used units, and return the numbers of these quotas."""
        free = [
            number
            for number, part in enumerate(self._parts)
            if part.room(key, self.now_us) == part.quota.limit
        ]
        for number in free:
            self._parts[number].hits.pop(key, None)
        return free

    def _see(self, key: str) -> None:
        for part in self._parts:
            part.see(key, self.now_us)

    def _waits(self, key: str, cost: int) -> list[int]:
        return [part.us_until(key, cost, self.now_us) for part in self._parts]

    def _decision(self, key: str, waits: list[int]) -> Decision:
        return combine(
            [part.decision(key, wait, self.now_us) for part, wait in zip(self._parts, waits, strict=True)]
        )
