"""What a scenario of the demonstration plays on: a provider of its own, a clock, and somebody who tells."""

import asyncio
from collections.abc import Sequence

import httpx
from rich.console import Console
from rich.text import Text

from src.cli.outcomes import RESULT_STYLES, CallResult, Observation, observe
from src.cli.provider_client import ProviderClient
from src.resilience import (
    Call,
    Clock,
    Event,
    FellBack,
    Policy,
    ProbeStarted,
    Randomizer,
    RejectedError,
    Retried,
    RetriesExhausted,
    StateChanged,
)


class Stage:
    """Tells what is done and what comes of it, line by line, each with its time since the scenario began.

    It is a `Listener`: what the patterns decide is told as it happens.

    Args:
        console: Where it is told.
        clock: Measures.
        randomizer: For the patterns that draw lots.
        provider: The one that the scenario may mistreat.
    """

    def __init__(
        self, console: Console, clock: Clock, randomizer: Randomizer, provider: ProviderClient
    ) -> None:
        self.clock = clock
        self.randomizer = randomizer
        self.provider = provider
        self._console = console
        self._began = clock.monotonic()
        self._steps = 0

    def open(self, title: str, purpose: str) -> None:
        """Begin the scenario with its title, and what its patterns are for."""
        self._console.print()
        self._console.rule(Text(title, "bold"), align="left")
        self._console.print(purpose, style="italic")

    def step(self, text: str) -> None:
        """Begin a step with a sentence on what is about to happen."""
        self._steps += 1
        self._console.print(f"\n{self._steps}. {text}", style="bold")

    def tell(self, text: str, style: str = "") -> None:
        """Tell of something that has happened."""
        line = Text(f"  {self.clock.monotonic() - self._began:>5.1f} s  ")
        self._console.print(line.append(Text(text, style)), soft_wrap=True)

    async def wait(self, seconds: float) -> None:
        """Let time pass, and say so."""
        self.tell(f"waiting {seconds:g} s")
        await self.clock.sleep(seconds)

    async def call(self, policy: Policy, path: str) -> None:
        """GET `path` inside `policy` and tell what became of it."""
        await self.show(path, lambda: policy.run(lambda: self.provider.call("GET", path)))

    async def show(self, what: str, call: Call[httpx.Response]) -> None:
        """Make `call` and tell what became of it."""
        seen = await observe(call, self.clock)
        self.tell(f"{what}: {seen.outcome} {seen.detail}, {_ms(seen.seconds)}", RESULT_STYLES[seen.outcome])

    async def burst(self, policy: Policy, path: str, calls: int) -> None:
        """GET `path` inside `policy`, `calls` times at once; tell how many ended in which way, and when."""

        async def one() -> Observation:
            return await observe(lambda: policy.run(lambda: self.provider.call("GET", path)), self.clock)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(calls)]
        self._tell_outcomes([task.result() for task in tasks])

    def __call__(self, event: Event) -> None:
        """Tell of `event`, unless the call's own line does."""
        match event:
            case StateChanged(before=before, after=after, reason=reason):
                self.tell(f"   breaker {before} -> {after} ({reason})", "bold")
            case ProbeStarted():
                self.tell("   breaker lets one call through to see")
            case Retried(attempt=attempt, delay=delay, error=error):
                self.tell(f"   attempt {attempt}: {error}; the next in {delay:.2f} s", "yellow")
            case RetriesExhausted(attempts=attempts, error=error):
                self.tell(f"   attempt {attempts}: {error}; it was the last", "yellow")
            case FellBack(error=error):
                self.tell(f"   fallback answers ({_reason(error)})", "cyan")

    def _tell_outcomes(self, seen: Sequence[Observation]) -> None:
        for outcome in CallResult:
            seconds = sorted(one.seconds for one in seen if one.outcome is outcome)
            if seconds:
                self.tell(
                    f"{outcome:<9} {len(seconds):>3}, after {_ms(seconds[0])} to {_ms(seconds[-1])}",
                    RESULT_STYLES[outcome],
                )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _reason(error: BaseException) -> str:
    return f"rejected by {error.policy}" if isinstance(error, RejectedError) else str(error)
