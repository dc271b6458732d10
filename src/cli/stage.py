"""The environment of a scenario: its provider, its clock, and the methods that call and print."""

import asyncio
from collections.abc import Sequence

import httpx
from rich.console import Console
from rich.text import Text

from src.cli.outcomes import RESULT_STYLES, CallResult, ObservedCall, observe
from src.cli.provider_client import ProviderClient
from src.resilience import RejectedError
from src.resilience.clock import Clock, Randomizer
from src.resilience.events import Event, FellBack, ProbeStarted, Retried, RetriesExhausted, StateChanged
from src.resilience.policy import Call, Policy


class Stage:
    """Makes calls and prints their outcomes, one per line, with the time since the start of the scenario.

    The instance is a `Listener`, and prints the events of the patterns.

    Args:
        console: Receives the text.
        clock: Measures times and waits.
        randomizer: The random numbers of the patterns.
        provider: The provider of this scenario.
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
        """Print the title of the scenario, and the purpose of its patterns."""
        self._console.print()
        self._console.rule(Text(title, "bold"), align="left")
        self._console.print(purpose, style="italic")

    def step(self, text: str) -> None:
        """Print the description of the next step."""
        self._steps += 1
        self._console.print(f"\n{self._steps}. {text}", style="bold")

    def print(self, text: str, style: str = "") -> None:
        """Print one line with the current time."""
        line = Text(f"  {self.clock.monotonic() - self._began:>5.1f} s  ")
        self._console.print(line.append(Text(text, style)), soft_wrap=True)

    async def wait(self, seconds: float) -> None:
        """Print the wait, and wait."""
        self.print(f"waiting {seconds:g} s")
        await self.clock.sleep(seconds)

    async def call(self, policy: Policy, path: str) -> None:
        """GET `path` through `policy`, and print the outcome."""
        await self.show(path, lambda: policy.run(lambda: self.provider.call("GET", path)))

    async def show(self, name: str, call: Call[httpx.Response]) -> None:
        """Make `call`, and print its name and outcome."""
        seen = await observe(call, self.clock)
        self.print(f"{name}: {seen.outcome} {seen.detail}, {_ms(seen.seconds)}", RESULT_STYLES[seen.outcome])

    async def burst(self, policy: Policy, path: str, calls: int) -> None:
        """GET `path` through `policy`, `calls` times concurrently, and print the count of each outcome."""

        async def make_call() -> ObservedCall:
            return await observe(lambda: policy.run(lambda: self.provider.call("GET", path)), self.clock)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(make_call()) for _ in range(calls)]
        self._print_outcomes([task.result() for task in tasks])

    def __call__(self, event: Event) -> None:
        """Print `event`, unless the line of the call already shows it."""
        match event:
            case StateChanged(before=before, after=after, reason=reason):
                self.print(f"   breaker {before} -> {after} ({reason})", "bold")
            case ProbeStarted():
                self.print("   the breaker admits one probe")
            case Retried(attempt=attempt, delay=delay, error=error):
                self.print(f"   attempt {attempt}: {error}; next attempt in {delay:.2f} s", "yellow")
            case RetriesExhausted(attempts=attempts, error=error):
                self.print(f"   attempt {attempts}: {error}; no further attempt", "yellow")
            case FellBack(error=error):
                self.print(f"   fallback answers ({_reason(error)})", "cyan")

    def _print_outcomes(self, calls: Sequence[ObservedCall]) -> None:
        for outcome in CallResult:
            seconds = sorted(call.seconds for call in calls if call.outcome is outcome)
            if seconds:
                self.print(
                    f"{outcome:<9} {len(seconds):>3}, after {_ms(seconds[0])} to {_ms(seconds[-1])}",
                    RESULT_STYLES[outcome],
                )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _reason(error: BaseException) -> str:
    return f"rejected by {error.policy}" if isinstance(error, RejectedError) else str(error)
