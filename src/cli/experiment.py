"""The experiment: it calls a provider repeatedly through a circuit breaker, and prints the outcomes."""

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.cli.base_url import check_base_url
from src.cli.outcomes import RESULT_STYLES, STATE_STYLES, ObservedCall, observe
from src.cli.provider_client import ProviderClient, ProviderError, connect, is_failure
from src.provider.faults import MAX_PATTERN_LENGTH, Faults
from src.resilience import (
    CallTimeoutError,
    CircuitBreaker,
    CircuitBreakerOptions,
    MemoryBreakerStore,
    Pipeline,
    Timeout,
)
from src.resilience.circuit_breaker import BreakerState
from src.resilience.clock import Clock, Randomizer
from src.resilience.events import Event, StateChanged

SPORADIC_FAILURE_RATE = 0.4
CONTROL_SECONDS = 5.0
"""The longest time in which the provider must return or change its faults."""

_KEY = "/kv/experiment"
_CYCLE = (("PUT", b'{"from": "experiment"}'), ("GET", None), ("DELETE", None))


class Scenario(StrEnum):
    """The faults of the provider: no fault, random failures, or failure of every call."""

    NONE = "none"
    SPORADIC = "sporadic"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentOptions:
    """The options of an experiment, with the names of the flags.

    Attributes:
        fail_max: The number of consecutive failures that opens the breaker, at least 1.
        reset_timeout: The time in seconds for which the breaker stays open; finite, at least 0.001.
        number_requests: The number of calls, at least 1.
        interval: The time in seconds between the end of a call and the next call; finite, at least 0.
        timeout: The longest time of a call in seconds; finite, at least 0.001.
        url: The base URL of the provider, http or https; None for a provider in this process.
        scenario: The faults of the provider. None leaves the faults of the provider at `url` unchanged, and
            means sporadic faults for the provider in this process.

    Raises:
        ValueError: An option is out of its range. The message begins with the name of the option.
    """

    fail_max: int = 3
    reset_timeout: float = 10.0
    number_requests: int = 10
    interval: float = 1.5
    timeout: float = 2.0
    url: str | None = None
    scenario: Scenario | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least {least:g}, not {value:g}")
        if self.url is not None:
            check_base_url(self.url, "http://127.0.0.1:9000")

    @property
    def effective_scenario(self) -> Scenario | None:
        """The scenario; None only if the provider's faults stay unchanged."""
        return Scenario.SPORADIC if self.url is None and self.scenario is None else self.scenario


_LEAST = {"fail_max": 1, "reset_timeout": 0.001, "number_requests": 1, "interval": 0, "timeout": 0.001}


class ProviderUnreachableError(Exception):
    """The experiment could not start: there is no answer, or not the answer of a provider."""


async def run_experiment(
    options: ExperimentOptions, console: Console, clock: Clock, randomizer: Randomizer
) -> None:
    """Make the calls and print each one, then print a table of outcomes and a timeline of states.

    A cancelled experiment prints the tables of the calls so far. At the end, the original faults of the
    provider are restored.

    Args:
        options: The options.
        console: Receives the text.
        clock: Measures times and waits.
        randomizer: Determines which calls fail in `Scenario.SPORADIC`.

    Raises:
        ProviderUnreachableError: The experiment could not start. A provider that fails later is no error.
    """
    async with (
        connect(options.url, clock, randomizer) as provider,
        _temporary_faults(provider, _scenario_faults(options, randomizer), options.url, console, clock),
    ):
        await _Experiment(options, provider, console, clock).run()


def _scenario_faults(options: ExperimentOptions, randomizer: Randomizer) -> Faults | None:
    match options.effective_scenario:
        case None:
            return None
        case Scenario.NONE:
            return Faults()
        case Scenario.ALL:
            return Faults(failure_rate=1)
        case Scenario.SPORADIC:  # a pattern makes the failures repeatable with any provider
            steps = min(options.number_requests, MAX_PATTERN_LENGTH)
            draws = (randomizer.random() < SPORADIC_FAILURE_RATE for _ in range(steps))
            return Faults(pattern="".join("F" if fails else "S" for fails in draws))


@asynccontextmanager
async def _temporary_faults(
    provider: ProviderClient, faults: Faults | None, url: str | None, console: Console, clock: Clock
) -> AsyncIterator[None]:
    """Check that the provider answers, set `faults`, if any, and restore the original faults afterwards."""
    timeout = Timeout(CONTROL_SECONDS, clock)
    with _raise_unreachable(url):
        original = await timeout.run(provider.faults)
    if faults is None:
        yield
        return
    try:
        with _raise_unreachable(url):
            await timeout.run(lambda: provider.set_faults(faults))
        yield
    finally:
        try:
            await timeout.run(lambda: provider.set_faults(original))
        except (ProviderError, CallTimeoutError) as error:
            console.print(f"The provider's faults could not be restored: {error}", style="yellow")


@contextmanager
def _raise_unreachable(url: str | None) -> Iterator[None]:
    """Raise the provider's errors as `ProviderUnreachableError`."""
    try:
        yield
    except (ProviderError, CallTimeoutError) as error:
        raise ProviderUnreachableError(f"no provider at {url}: {error}") from error


@dataclass(frozen=True, slots=True)
class _StatePeriod:
    """A period of the breaker in `state`, from `since` (seconds after the start) on."""

    since: float
    state: BreakerState
    reason: str


class _Experiment:
    def __init__(
        self, options: ExperimentOptions, provider: ProviderClient, console: Console, clock: Clock
    ) -> None:
        self._options = options
        self._provider = provider
        self._console = console
        self._clock = clock
        self._began = clock.monotonic()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._periods = [_StatePeriod(0.0, BreakerState.CLOSED, "initial state")]
        self._breaker = CircuitBreaker(
            "breaker",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(failure_threshold=options.fail_max, open_seconds=options.reset_timeout),
            clock,
            listener=self._record_state,
            is_failure=is_failure,
        )
        self._pipeline = Pipeline(self._breaker, Timeout(options.timeout, clock))

    async def run(self) -> None:
        self._print_head()
        try:
            for number in range(1, self._options.number_requests + 1):
                if number > 1:
                    await self._clock.sleep(self._options.interval)
                await self._make_call(number)
        finally:
            self._print_tables()

    def _print_head(self) -> None:
        options = self._options
        self._console.print(
            f"{options.number_requests} calls of {options.url or 'a provider in this process'}, "
            f"{options.interval:g} s apart, timeout {options.timeout:g} s"
        )
        self._console.print(
            f"Faults: {options.effective_scenario or 'those of the provider'}. The breaker opens after "
            f"{options.fail_max} consecutive failures, for {options.reset_timeout:g} s."
        )
        self._console.print(
            "\n  #      time  call    outcome                  duration  breaker", style="bold"
        )

    async def _make_call(self, number: int) -> None:
        method, body = _CYCLE[(number - 1) % len(_CYCLE)]
        at = self._elapsed()
        before = (await self._breaker.status()).state
        call = await observe(
            lambda: self._pipeline.run(lambda: self._provider.call(method, _KEY, body)), self._clock
        )
        after = (await self._breaker.status()).state
        self._counts[call.outcome, call.detail] += 1
        self._console.print(_line(number, at, method, call, before=before, after=after), soft_wrap=True)

    def _record_state(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            self._periods.append(_StatePeriod(self._elapsed(), BreakerState(event.after), event.reason))

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._began

    def _print_tables(self) -> None:
        made, planned = self._counts.total(), self._options.number_requests
        self._console.print()
        if made < planned:
            self._console.print(f"Stopped after {made} of {planned} calls.", style="yellow")
        self._console.print(self._outcome_table())
        self._console.print(self._state_table())

    def _outcome_table(self) -> Table:
        table = Table("outcome", "detail", title="Outcomes", title_justify="left")
        table.add_column("calls", justify="right")
        table.add_column("share", justify="right")
        for (outcome, detail), calls in self._counts.most_common():
            table.add_row(outcome, detail, str(calls), f"{calls / self._counts.total():.0%}")
        return table

    def _state_table(self) -> Table:
        table = Table(title="States of the breaker", title_justify="left")
        table.add_column("from", justify="right")
        table.add_column("state")
        table.add_column("duration", justify="right")
        table.add_column("reason")
        ends = [*(period.since for period in self._periods[1:]), self._elapsed()]
        for period, end in zip(self._periods, ends, strict=True):
            state = Text(period.state, STATE_STYLES[period.state])
            table.add_row(f"{period.since:.1f} s", state, f"{end - period.since:.1f} s", period.reason)
        return table


def _line(
    number: int, at: float, method: str, call: ObservedCall, *, before: BreakerState, after: BreakerState
) -> Text:
    line = Text(f"{number:>3}  {at:>6.1f} s  {method:<6}  ")
    line.append(f"{f'{call.outcome} {call.detail}':<25}", RESULT_STYLES[call.outcome])
    line.append(f" {call.seconds * 1000:>5.0f} ms  ")
    if before is not after:
        line.append(before, STATE_STYLES[before]).append(" -> ")
    return line.append(after, STATE_STYLES[after])
