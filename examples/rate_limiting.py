"""Rate limiting: the same callers before five algorithms, what a call may cost, and waiting for a turn.

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
"""(second, requests at once): they crowd around the end of the first window, where algorithms differ."""


async def compare_algorithms() -> None:
    """Show how many of each crowd every algorithm lets through."""
    crowds = [f"{second:.0f} s: {crowd}" for second, crowd in ARRIVALS]
    shown = table(
        "5 requests in 10 seconds: who lets through how many", "algorithm", *crowds, "most in any 10 s"
    )
    for algorithm, (admitted, times) in zip(
        ALGORITHMS, await asyncio.gather(*map(offer_the_crowds, ALGORITHMS)), strict=True
    ):
        shown.add_row(algorithm, *map(str, admitted), str(most_in_any_window(times)))
    console.print(shown)


async def offer_the_crowds(algorithm: Algorithm) -> tuple[list[int], list[float]]:
    """Return how many of each crowd got through, and when each who did."""
    clock = SimulatedClock()
    limiter = memory_rate_limiter(algorithm, QUOTA, clock)
    admitted: list[int] = []
    times: list[float] = []
    for second, crowd in ARRIVALS:
        await clock.sleep(second - clock.monotonic())
        decisions = [await limiter.hit("alice") for _ in range(crowd)]
        admitted.append(sum(decision.allowed for decision in decisions))
        times += [second] * admitted[-1]
    return admitted, times


def most_in_any_window(times: list[float]) -> int:
    """Return how many of `times` lie in one half-open window, at most."""
    return max(sum(start <= time < start + QUOTA.window_seconds for time in times) for start in times)


async def spend_by_cost() -> None:
    """Show that a call may cost more than one unit, that looking is free and that a refusal costs nothing."""
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


async def wait_for_a_turn() -> None:
    """Show the policy: calls are delayed to one a second, and those that would wait too long are refused."""
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
            timeline.note(f"call {number}", "let through")

        try:
            await limit.run(call)
        except RateLimitedError as error:
            timeline.note(f"call {number}", f"refused, come back in {error.retry_after:.0f} s", style="red")

    await asyncio.gather(*(pay(number) for number in range(1, 7)))
    timeline.show()


if __name__ == "__main__":
    for scene in (compare_algorithms, spend_by_cost, wait_for_a_turn):
        play(scene())
