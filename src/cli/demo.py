"""The demonstration: the scenarios in turn, each on a new provider in this process."""

from collections.abc import Awaitable, Callable, Sequence

from rich.console import Console

from src.cli import scenarios
from src.cli.provider_client import connect
from src.cli.stage import Stage
from src.resilience import Clock, SystemRandomizer

SCENARIOS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "breaker": scenarios.breaker,
    "retry": scenarios.retry,
    "bulkhead": scenarios.bulkhead,
    "fallback": scenarios.fallback,
}


async def run_demo(names: Sequence[str], console: Console, clock: Clock, seed: int | None) -> None:
    """Play scenarios, telling them step by step.

    Args:
        names: Of `SCENARIOS`, in the order to play them.
        console: Where they are told.
        clock: Measures and waits.
        seed: Makes what is drawn by lot the same each time, whichever scenarios are played; None does not.
    """
    began = clock.monotonic()
    for name in names:
        randomizer = SystemRandomizer(seed)
        async with connect(None, clock, randomizer) as provider:
            await SCENARIOS[name](Stage(console, clock, randomizer, provider))
    console.print(f"\nDone in {clock.monotonic() - began:.1f} s.", style="bold green")
