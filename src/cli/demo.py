"""The demonstration: it runs the scenarios in turn, each with a new provider in this process."""

from collections.abc import Awaitable, Callable, Sequence

from rich.console import Console

from src.cli import scenarios
from src.cli.provider_client import connect
from src.cli.stage import Stage
from src.resilience.clock import Clock, SystemRandomizer

SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "breaker": scenarios.breaker,
    "retry": scenarios.retry,
    "bulkhead": scenarios.bulkhead,
    "fallback": scenarios.fallback,
}


async def run_demo(names: Sequence[str], console: Console, clock: Clock, seed: int | None) -> None:
    """Run scenarios, and print their steps.

    Args:
        names: Names from `SCENARIOS`, in the order in which they run.
        console: Receives the text.
        clock: Measures times and waits.
        seed: The seed of each scenario's random numbers; None for unpredictable ones.
    """
    began = clock.monotonic()
    for name in names:
        randomizer = SystemRandomizer(seed)
        async with connect(None, clock, randomizer) as provider:
            await SCENARIOS[name](Stage(console, clock, randomizer, provider))
    console.print(f"\nDone in {clock.monotonic() - began:.1f} s.", style="bold green")
