"""Rate limiting: the same requests with five algorithms, calls of different cost, and calls that wait.

Run it from the checkout: `python examples/rate_limiting.py`, or `python -m examples.rate_limiting`.
"""

import asyncio
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, which has `examples` and `src`

from examples.stage import SimulatedClock, Timeline, console, play, table
from src.resilience import Quota, RateLimit, RateLimitedError, RateLimitOptions, memory_rate_limiter
from src.resilience.rate_limiter import Algorithm

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
QUOTA = Quota(limit=5, window_seconds=10.0)
ARRIVALS = ((0.0, 1), (9.0, 4), (10.0, 5), (15.0, 5), (20.0, 5))
"""Pairs of a second and a number of requests. At the end of the first window, the algorithms differ."""


async def compare_algorithms() -> None:
    """Show how many requests of each burst every algorithm allows."""
    bursts = [f"{second:.0f} s: {requests}" for second, requests in ARRIVALS]
    shown = table("5 requests in 10 seconds: requests allowed", "algorithm", *bursts, "most in any 10 s")
    for algorithm, (admitted, times) in zip(
        ALGORITHMS, await asyncio.gather(*map(hit_in_bursts, ALGORITHMS)), strict=True
    ):
        shown.add_row(algorithm, *map(str, admitted), str(most_in_any_window(times)))
    console.print(shown)


async def hit_in_bursts(algorithm: Algorithm) -> tuple[list[int], list[float]]:
    """Return the number of allowed requests in each burst, and the time of each allowed request."""
    clock = SimulatedClock()
    limiter = memory_rate_limiter(algorithm, QUOTA, clock)
    admitted: list[int] = []
    times: list[float] = []
    for second, requests in ARRIVALS:
        await clock.sleep(second - clock.monotonic())
        decisions = [await limiter.hit("alice") for _ in range(requests)]
        admitted.append(sum(decision.allowed for decision in decisions))
        times += [second] * admitted[-1]
    return admitted, times


def most_in_any_window(times: list[float]) -> int:
    """Return the largest number of `times` in one half-open window."""
    return max(sum(start <= time < start + QUOTA.window_seconds for time in times) for start in times)


async def spend_by_cost() -> None:
    """Show that a call may cost several units, and that a peek and a refusal take no units."""
    limiter = memory_rate_limiter("sliding_window_log", QUOTA, SimulatedClock())
    shown = table("One caller, calls of different cost", "call", "allowed", "remaining", "retry after")
    for cost in (3, 4, 2):
        decision = await limiter.hit("bob", cost)
        shown.add_row(
            f"hit, cost {cost}",
            "yes" if decision.allowed else "no",
            str(decision.remaining),
            f"{decision.retry_after:.1f} s",
        )
    decision = await limiter.peek("bob")
    shown.add_row("peek", "yes" if decision.allowed else "no", str(decision.remaining), "")
    await limiter.reset("bob")
    decision = await limiter.peek("bob")
    shown.add_row("peek after reset", "yes" if decision.allowed else "no", str(decision.remaining), "")
    console.print(shown)


async def show_the_policy() -> None:
    """Show the policy: it delays calls to one per second, and rejects calls that would wait too long."""
    clock = SimulatedClock()
    timeline = Timeline("One call a second, waiting 3 seconds at the longest", clock)
    limit = RateLimit(
        memory_rate_limiter("leaky_bucket", Quota(limit=1, window_seconds=1.0), clock),
        RateLimitOptions(key="payments", max_wait_seconds=3.0),
        clock,
        listener=timeline,
    )

    async def pay(number: int) -> None:
        async def call() -> None:
            timeline.note(f"call {number}", "started")

        try:
            await limit.run(call)
        except RateLimitedError as error:
            text = f"rejected, retry after {error.retry_after:.0f} s"
            timeline.note(f"call {number}", text, style="red")

    await asyncio.gather(*(pay(number) for number in range(1, 7)))
    timeline.show()


if __name__ == "__main__":
    for scene in (compare_algorithms, spend_by_cost, show_the_policy):
        play(scene())
