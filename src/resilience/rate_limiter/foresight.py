"""Foresight: the time after which a number of units of a key has become free, one unit after another.

`RateLimiter.peek` decides one hit of at most the limit. This module calculates the time for more units than
that. The result is exact to some microseconds if the calls take each unit as soon as it is free. It is late
for calls of a larger cost, which leave units unused for a while.

With several quotas, the result is the latest time of all quotas, each by itself. This is exact for the
buckets. For windows the result may be too early, but is never too late: units that wait for one quota leave
the window of another quota later. So no call is rejected that could have had its units in time.
"""

from .options import Algorithm, Quota
from .store import Decision, RateLimiter

_US = 1_000_000


async def seconds_until(limiter: RateLimiter, key: str, units: int) -> float:
    """Return the seconds until the last of the next `units` units is free.

    Args:
        limiter: Keeps the quotas.
        key: The key of the quotas.
        units: The number of units, at least 1. It may exceed the limit.

    Raises:
        BaseException: The error of the limiter.
    """
    latest, index = 0.0, 0
    while index < len(quotas := limiter.quotas):  # they may be changed while the limiter decides
        smallest_limit = min(quota.limit for quota in quotas)
        cost = min(smallest_limit, _cost_to_peek(limiter.algorithm, quotas[index], units))
        decision = (await limiter.peek(key, cost)).by_quota[index]
        latest = max(latest, _seconds_until(limiter.algorithm, decision, cost, units))
        index += 1
    return latest


def _cost_to_peek(algorithm: Algorithm, quota: Quota, units: int) -> int:
    """Return the cost of the hit from whose decision the time for `units` units is calculated."""
    match algorithm:
        case "sliding_window_log":
            return (units - 1) % quota.limit + 1
        case "sliding_window_counter":
            return min(units, max(1, quota.limit - 1))
        case _:
            return 1


def _seconds_until(algorithm: Algorithm, decision: Decision, cost: int, units: int) -> float:
    """Return when the last of `units` units of one quota is free, from its decision on a hit of `cost`."""
    quota = decision.quota
    limit, window = quota.limit, quota.window_seconds
    match algorithm:
        case "sliding_window_log":  # a unit leaves the window after the time of one window
            return (units - 1) // limit * window + decision.retry_after
        case "sliding_window_counter":
            return _until_counted(decision, cost, units)
        case "fixed_window":
            later = units - decision.remaining
            ends_in = decision.reset_after or window  # without a window, the next hit begins one
            return ends_in + (later - 1) // limit * window if later > 0 else 0.0
        case "token_bucket" | "leaky_bucket":  # the bucket is full after `reset_after`
            return max(0.0, decision.reset_after + (units - limit) * quota.unit_us / _US)


def _until_counted(decision: Decision, cost: int, units: int) -> float:
    """Return when the last of `units` units is free by the sliding window counter.

    A unit that becomes free exactly at the end of a window counts in the next window. So a window gives as
    many units as the limit only if the window before it is empty, and otherwise one unit fewer.
    """
    window, limit = decision.quota.window_seconds, decision.quota.limit
    if units <= decision.remaining:
        return 0.0
    if limit == 1:  # every other window is empty
        return decision.retry_after + 2 * (units - 1) * window
    has_counted = decision.reset_after > window  # whether the current window has hits
    ends_in = decision.reset_after - window if has_counted else decision.reset_after or window
    if decision.retry_after <= ends_in:
        if units == cost:
            return decision.retry_after
        current = int(has_counted)  # any count up to `limit - cost` leads to the same result
    else:  # `cost` units are free once this share of the current window no longer counts
        current = round((limit - cost) * window / (ends_in + window - decision.retry_after))
    previous = limit if decision.remaining == limit - current else limit - 1  # when the next window begins
    windows, others = divmod(units - (previous - current) - 1, limit - 1)
    if windows:
        previous = limit - 1
    return ends_in + (windows + (previous + others + 1 - limit) / previous) * window
