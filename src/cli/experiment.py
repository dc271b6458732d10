"""The experiment: one client, one circuit breaker, one provider, call after call, and what came of it."""

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from src.cli.outcomes import RESULT_STYLES, STATE_STYLES, Observation, observe
from src.cli.provider_client import ProviderClient, ProviderError, connect, is_failure
from src.provider.faults import MAX_PATTERN_LENGTH, Faults
from src.resilience import (
    BreakerState,
    CallTimeoutError,
    CircuitBreaker,
    CircuitBreakerOptions,
    Clock,
    Event,
    MemoryBreakerStore,
    Pipeline,
    Randomizer,
    StateChanged,
    Timeout,
)

SPORADIC_FAILURE_RATE = 0.4
CONTROL_SECONDS = 5.0
"""How long the provider may take to show or change its faults."""

_KEY = "/kv/experiment"
_CYCLE = (("PUT", b'{"from": "experiment"}'), ("GET", None), ("DELETE", None))


class Scenario(StrEnum):
    """How the provider is made to fail."""

    NONE = "none"
    SPORADIC = "sporadic"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentOptions:
    """What is tried. The names are those of the flags.

    Attributes:
        fail_max: Failures in a row at which the breaker opens, at least 1.
        reset_timeout: Seconds it stays open; finite, at least 0.001.
        number_requests: Calls made, at least 1.
        interval: Seconds from the end of a call to the next; finite, at least 0.
        timeout: Seconds a call may take; finite, at least 0.001.
        url: Base URL of the provider, http or https; None for one in this process.
        scenario: How it is made to fail; None leaves its faults as they are, or makes them sporadic where
            the provider is one in this process, which has none.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
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
        if self.url is not None and not _is_base_url(self.url):
            raise ValueError(f"url must be like http://127.0.0.1:9000, not {self.url!r}")

    @property
    def scenario_played(self) -> Scenario | None:
        """The scenario, None meaning now that faults are left alone."""
        return Scenario.SPORADIC if self.url is None and self.scenario is None else self.scenario


_LEAST = {"fail_max": 1, "reset_timeout": 0.001, "number_requests": 1, "interval": 0, "timeout": 0.001}


def _is_base_url(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in {"http", "https"} and bool(url.host) and (url.port is None or 0 < url.port < 65536)


class ProviderUnreachableError(Exception):
    """The experiment could not begin: no provider answers, or what answers is none."""


async def run_experiment(
    options: ExperimentOptions, console: Console, clock: Clock, randomizer: Randomizer
) -> None:
    """Make the calls, telling of each; close with a table of outcomes and a timeline of states.

    Cancelled, it closes with what was done so far. Either way the provider is given its faults back.

    Args:
        options: What is tried.
        console: Where it is told.
        clock: Measures and waits.
        randomizer: Draws which calls fail in `Scenario.SPORADIC`.

    Raises:
        ProviderUnreachableError: It could not begin. A provider that fails later is what is being tried.
    """
    async with (
        connect(options.url, clock, randomizer) as provider,
        _prepared(provider, _faults_of(options, randomizer), options.url, console, clock),
    ):
        await _Experiment(options, provider, console, clock).run()


def _faults_of(options: ExperimentOptions, randomizer: Randomizer) -> Faults | None:
    match options.scenario_played:
        case None:
            return None
        case Scenario.NONE:
            return Faults()
        case Scenario.ALL:
            return Faults(failure_rate=1)
        case Scenario.SPORADIC:  # as a pattern, so that a seed repeats it against any provider
            steps = min(options.number_requests, MAX_PATTERN_LENGTH)
            draws = (randomizer.random() < SPORADIC_FAILURE_RATE for _ in range(steps))
            return Faults(pattern="".join("F" if fails else "S" for fails in draws))


@asynccontextmanager
async def _prepared(
    provider: ProviderClient, faults: Faults | None, url: str | None, console: Console, clock: Clock
) -> AsyncIterator[None]:
    """Know that a provider answers, and have `faults`, if any, in force there meanwhile."""
    patience = Timeout(CONTROL_SECONDS, clock)
    with _or_unreachable(url):
        found = await patience.run(provider.faults)
    if faults is None:
        yield
        return
    try:
        with _or_unreachable(url):
            await patience.run(lambda: provider.set_faults(faults))
        yield
    finally:
        try:
            await patience.run(lambda: provider.set_faults(found))
        except (ProviderError, CallTimeoutError) as error:
            console.print(f"The provider's faults could not be restored: {error}", style="yellow")


@contextmanager
def _or_unreachable(url: str | None) -> Iterator[None]:
    try:
        yield
    except (ProviderError, CallTimeoutError) as error:
        raise ProviderUnreachableError(f"no provider at {url}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Stay:
    """The breaker came into `state` at `since` seconds, and why."""

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
        self._stays = [_Stay(0.0, BreakerState.CLOSED, "the beginning")]
        self._breaker = CircuitBreaker(
            "breaker",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(failure_threshold=options.fail_max, open_seconds=options.reset_timeout),
            clock,
            listener=self._follow,
            is_failure=is_failure,
        )
        self._pipeline = Pipeline(self._breaker, Timeout(options.timeout, clock))

    async def run(self) -> None:
        self._tell_what_is_tried()
        try:
            for number in range(1, self._options.number_requests + 1):
                if number > 1:
                    await self._clock.sleep(self._options.interval)
                await self._make_call(number)
        finally:
            self._close()

    def _tell_what_is_tried(self) -> None:
        options = self._options
        self._console.print(
            f"{options.number_requests} calls, {options.interval:g} s apart, {options.timeout:g} s each, "
            f"to {options.url or 'a provider in this process'}"
        )
        self._console.print(
            f"Failures: {options.scenario_played or 'as the provider has them'}. The breaker opens at "
            f"{options.fail_max} in a row, for {options.reset_timeout:g} s."
        )
        self._console.print(
            "\n  #      time  call    outcome                      took  breaker", style="bold"
        )

    async def _make_call(self, number: int) -> None:
        method, body = _CYCLE[(number - 1) % len(_CYCLE)]
        at = self._elapsed()
        before = (await self._breaker.status()).state
        seen = await observe(
            lambda: self._pipeline.run(lambda: self._provider.call(method, _KEY, body)), self._clock
        )
        after = (await self._breaker.status()).state
        self._counts[seen.outcome, seen.detail] += 1
        self._console.print(_line(number, at, method, seen, before=before, after=after), soft_wrap=True)

    def _follow(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            self._stays.append(_Stay(self._elapsed(), BreakerState(event.after), event.reason))

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._began

    def _close(self) -> None:
        made, wanted = self._counts.total(), self._options.number_requests
        self._console.print()
        if made < wanted:
            self._console.print(f"Stopped after {made} of {wanted} calls.", style="yellow")
        self._console.print(self._outcomes())
        self._console.print(self._timeline())

    def _outcomes(self) -> Table:
        table = Table("outcome", "detail", title="Outcomes", title_justify="left")
        table.add_column("calls", justify="right")
        table.add_column("share", justify="right")
        for (outcome, detail), calls in self._counts.most_common():
            table.add_row(outcome, detail, str(calls), f"{calls / self._counts.total():.0%}")
        return table

    def _timeline(self) -> Table:
        table = Table(title="States of the breaker", title_justify="left")
        table.add_column("from", justify="right")
        table.add_column("state")
        table.add_column("lasted", justify="right")
        table.add_column("why")
        ends = [*(stay.since for stay in self._stays[1:]), self._elapsed()]
        for stay, end in zip(self._stays, ends, strict=True):
            state = Text(stay.state, STATE_STYLES[stay.state])
            table.add_row(f"{stay.since:.1f} s", state, f"{end - stay.since:.1f} s", stay.reason)
        return table


def _line(
    number: int, at: float, method: str, seen: Observation, *, before: BreakerState, after: BreakerState
) -> Text:
    line = Text(f"{number:>3}  {at:>6.1f} s  {method:<6}  ")
    line.append(f"{f'{seen.outcome} {seen.detail}':<25}", RESULT_STYLES[seen.outcome])
    line.append(f" {seen.seconds * 1000:>5.0f} ms  ")
    if before is not after:
        line.append(before, STATE_STYLES[before]).append(" -> ")
    return line.append(after, STATE_STYLES[after])
