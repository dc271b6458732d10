"""The experiment, on a fake clock."""

import asyncio
import math

import pytest

from src.cli import experiment
from src.cli.experiment import ExperimentOptions, ProviderUnreachableError, Scenario, run_experiment
from src.cli.provider_client import NoAnswerError, ProviderClient
from src.provider.faults import Faults
from src.resilience.clock import SystemRandomizer
from tests.support.clock import FakeClock, FakeRandomizer
from tests.unit.cli.conftest import Terminal


async def tried(options: ExperimentOptions, seed: int = 0) -> Terminal:
    terminal, clock = Terminal(), FakeClock()
    await clock.drive(run_experiment(options, terminal, clock, SystemRandomizer(seed)))
    return terminal


def call_lines(terminal: Terminal) -> list[list[str]]:
    return [line.split() for line in terminal.lines_with(" ms  ")]


async def test_failing_calls_open_the_breaker_and_a_probe_is_made_in_time():
    terminal = await tried(ExperimentOptions(scenario=Scenario.ALL))

    states = [" ".join(words[words.index("ms") + 1 :]) for words in call_lines(terminal)]
    assert states == ["CLOSED"] * 2 + ["CLOSED -> OPEN"] + ["OPEN"] * 6 + ["HALF_OPEN -> OPEN"]


async def test_each_call_has_its_number_time_method_outcome_and_duration():
    terminal = await tried(ExperimentOptions(scenario=Scenario.NONE, number_requests=4))

    assert call_lines(terminal) == [
        ["1", "0.0", "s", "PUT", "ok", "201", "0", "ms", "CLOSED"],
        ["2", "1.5", "s", "GET", "ok", "200", "0", "ms", "CLOSED"],
        ["3", "3.0", "s", "DELETE", "ok", "204", "0", "ms", "CLOSED"],
        ["4", "4.5", "s", "PUT", "ok", "201", "0", "ms", "CLOSED"],
    ]


async def test_the_experiment_ends_with_a_table_of_outcomes():
    terminal = await tried(ExperimentOptions(scenario=Scenario.ALL))

    assert terminal.lines_with("rejected", "by breaker", " 6 ", "60%")
    assert terminal.lines_with("failed", "503", " 4 ", "40%")


async def test_the_experiment_ends_with_a_table_of_states():
    terminal = await tried(ExperimentOptions(scenario=Scenario.ALL))

    assert terminal.lines_with(" 0.0 s ", "CLOSED", " 3.0 s ", "initial state")
    assert terminal.lines_with(" 3.0 s ", "OPEN", " 10.5 s ", "failures in a row: 3")
    assert terminal.lines_with(" 13.5 s ", "HALF_OPEN", "the open time is over")
    assert terminal.lines_with(" 13.5 s ", "OPEN", "probes failed: 1")


async def test_no_line_is_wider_than_80_columns():
    terminal = await tried(ExperimentOptions(scenario=Scenario.ALL, number_requests=200))

    assert max(len(line) for line in terminal.text.splitlines()) <= 80


async def test_a_seed_repeats_sporadic_failures():
    options = ExperimentOptions(scenario=Scenario.SPORADIC, fail_max=100, number_requests=30)

    one, again, other = [await tried(options, seed) for seed in (1, 1, 2)]

    assert one.text == again.text
    assert one.text != other.text
    assert one.lines_with("failed 503")
    assert one.lines_with("ok 200")


async def test_without_url_or_scenario_failures_are_sporadic():
    assert (await tried(ExperimentOptions())).lines_with("Faults: sporadic")


async def test_the_faults_of_a_provider_at_a_url_stay_unchanged():
    assert ExperimentOptions(url="http://127.0.0.1:9000").effective_scenario is None


async def test_hanging_calls_are_stopped_and_count_as_failures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(experiment, "_scenario_faults", lambda *_: Faults(failure_rate=1, kind="hang"))

    terminal = await tried(ExperimentOptions(timeout=0.5, number_requests=4))

    assert len(terminal.lines_with("timed out after 0.5 s", "500 ms")) == 3
    assert len(terminal.lines_with("rejected by breaker")) == 1


async def test_calls_that_are_cut_count_as_failures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(experiment, "_scenario_faults", lambda *_: Faults(failure_rate=1, kind="cut"))

    terminal = await tried(ExperimentOptions(number_requests=3))

    assert terminal.lines_with("no answer (cut off)", "CLOSED -> OPEN")


async def test_a_cancelled_experiment_prints_the_calls_so_far(terminal: Terminal, clock: FakeClock):
    options = ExperimentOptions(scenario=Scenario.NONE)
    running = asyncio.create_task(run_experiment(options, terminal, clock, FakeRandomizer()))
    await clock.advance(4)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert terminal.lines_with("Stopped after 3 of 10 calls.")
    assert terminal.lines_with("initial state")


async def test_the_faults_of_the_provider_are_restored(
    provider: ProviderClient, terminal: Terminal, clock: FakeClock
):
    found = Faults(pattern="SSF", latency_ms=3)
    await provider.set_faults(found)

    async def fail() -> None:
        async with experiment._temporary_faults(
            provider, Faults(failure_rate=1), "http://there", terminal, clock
        ):
            assert await provider.faults() == Faults(failure_rate=1)
            raise RuntimeError("whatever ended it")

    with pytest.raises(RuntimeError, match="whatever"):
        await fail()
    assert await provider.faults() == found


async def test_faults_that_cannot_be_restored_are_reported(
    provider: ProviderClient, terminal: Terminal, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    async def refuse_connection(_faults: Faults) -> None:
        raise NoAnswerError("no connection")

    async with experiment._temporary_faults(provider, Faults(), "http://there", terminal, clock):
        monkeypatch.setattr(provider, "set_faults", refuse_connection)

    assert terminal.lines_with("could not be restored: no connection")


async def test_a_provider_that_never_answers_is_unreachable(
    provider: ProviderClient, terminal: Terminal, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(provider, "faults", asyncio.Event().wait)

    async def begin() -> None:
        async with experiment._temporary_faults(provider, None, "http://there", terminal, clock):
            raise AssertionError("nothing answers")

    with pytest.raises(ProviderUnreachableError, match=r"no provider at http://there: .* longer than 5 s"):
        await clock.drive(begin())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fail_max", 0),
        ("number_requests", 0),
        ("reset_timeout", 0.0),
        ("reset_timeout", math.inf),
        ("interval", -1.0),
        ("interval", math.nan),
        ("timeout", 0.0),
        ("timeout", math.nan),
        ("url", ""),
        ("url", "127.0.0.1:9000"),
        ("url", "ftp://127.0.0.1"),
        ("url", "http://"),
        ("url", "http://[::1"),
        ("url", "http://127.0.0.1:99999"),
    ],
)
def test_an_error_names_the_invalid_option(option: str, value: object):
    with pytest.raises(ValueError, match=rf"^{option} must"):
        ExperimentOptions(**{option: value})
