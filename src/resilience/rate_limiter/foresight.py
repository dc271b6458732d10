"""Foresight: when the calls that wait for a quota will have got their units, one after another.

A single `RateLimiter.peek` does not answer that: it takes at most the limit, all at once. Here is the rest of
the arithmetic. It is exact to some microseconds for calls that take each unit as soon as it is free, and late
for calls of a larger cost that leave units unused.
"""

from .store import RateLimiter

_US = 1_000_000


async def seconds_until(limiter: RateLimiter, key: str, units: int) -> float:
    """Return the seconds until the last of the next `units` units is free.

    Args:
        limiter: Keeps the quota.
        key: The key whose quota it is.
        units: How many units, at least 1; the limit does not bound them.

    Raises:
        BaseException: The error of the limiter.
    """
    limit = limiter.quota.limit
    match limiter.algorithm:
        case "sliding_window_log":  # a unit leaves the window after the time of one window
            windows, others = divmod(units - 1, limit)
            decision = await limiter.peek(key, others + 1)
            return windows * limiter.quota.window_seconds + decision.retry_after
        case "sliding_window_counter":
            return await _until_counted(limiter, key, units)
        case "fixed_window":
            decision = await limiter.peek(key)
            window = limiter.quota.window_seconds
            later = units - decision.remaining
            ends_in = decision.reset_after or window  # the next hit begins a window where there is none
            return ends_in + (later - 1) // limit * window if later > 0 else 0.0
        case "token_bucket" | "leaky_bucket":
            decision = await limiter.peek(key)  # the bucket is full after `reset_after`
            return max(0.0, decision.reset_after + (units - limit) * limiter.quota.unit_us / _US)


async def _until_counted(limiter: RateLimiter, key: str, units: int) -> float:
    """Return the same for the sliding window counter.

    A unit that becomes free exactly at the end of a window belongs to the next one. So a window gives as many
    units as the limit only where the window before it is empty, and else one unit fewer.
    """
    window, limit = limiter.quota.window_seconds, limiter.quota.limit
    cost = min(units, max(1, limit - 1))
    decision = await limiter.peek(key, cost)
    if units <= decision.remaining:
        return 0.0
    if limit == 1:  # every other window is empty
        return decision.retry_after + 2 * (units - 1) * window
    has_counted = decision.reset_after > window  # else the current window is empty
    ends_in = decision.reset_after - window if has_counted else decision.reset_after or window
    if decision.retry_after <= ends_in:
        if units == cost:
            return decision.retry_after
        current = int(has_counted)  # the limit less `cost`, or less
    else:  # `cost` units are free when the current window, as the one before, is out of sight to this share
        current = round((limit - cost) * window / (ends_in + window - decision.retry_after))
    previous = limit if decision.remaining == limit - current else limit - 1  # when the next window begins
    windows, others = divmod(units - (previous - current) - 1, limit - 1)
    if windows:
        previous = limit - 1
    return ends_in + (windows + (previous + others + 1 - limit) / previous) * window
