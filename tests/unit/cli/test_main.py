"""The command line."""

import pytest

from src.cli.__main__ import main
from src.cli.demo import SCENARIOS
from src.cli.experiment import Scenario


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "demo|experiment"),
        ("tour", "tour"),
        ("demo --scenario unheard_of", "breaker, retry, bulkhead, fallback"),
        ("demo --seed x", "--seed"),
        ("experiment --scenario unheard_of", "none, sporadic, all"),
        ("experiment --fail_max 0", "fail_max"),
        ("experiment --fail-max many", "--fail-max"),
        ("experiment --reset_timeout 0", "reset_timeout"),
        ("experiment --number_requests 0", "number_requests"),
        ("experiment --interval nan", "interval"),
        ("experiment --timeout inf", "timeout"),
        ("experiment --url localhost:9000", "url"),
        ("experiment --colour red", "--colour"),
        ("export --url localhost:8000", "url"),
        ("export --from yesterday", "from"),
        ("export --to 2026-02-30T00:00:00Z", "to"),
        ("export --api-key schlüssel", "api_key"),
        ("export --colour red", "--colour"),
        ("import", "FILE"),
        ("import points --url ftp://host", "url"),
        ("import points --batch_points 0", "batch_points"),
        ("import points --batch-points many", "--batch-points"),
    ],
)
def test_an_invalid_command_line_causes_one_line_that_names_the_error(
    line: str, named: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(line.split())

    output = capsys.readouterr()
    assert ended.value.code == 2
    assert len(output.err.splitlines()) == 1
    assert named in output.err
    assert output.out == ""


@pytest.mark.parametrize("dash", ["-", "_"])
def test_dashes_and_underscores_are_equivalent(dash: str, capsys: pytest.CaptureFixture[str]):
    flags = {"fail-max": "2", "reset-timeout": "5", "number-requests": "3"}
    written = [part for flag, value in flags.items() for part in (f"--{flag.replace('-', dash)}", value)]

    main(["experiment", *written, "--interval", "0", "--scenario", "all"])

    output = capsys.readouterr().out
    assert "3 calls of a provider in this process, 0 s apart" in output
    assert "2 consecutive failures, for 5 s" in output


@pytest.mark.parametrize("scenario", Scenario)
def test_an_experiment_ends_with_code_0_in_every_scenario(
    scenario: Scenario, capsys: pytest.CaptureFixture[str]
):
    main(["experiment", "--interval", "0", "--scenario", scenario, "--seed", "1"])

    assert f"Faults: {scenario}." in capsys.readouterr().out


def test_one_scenario_can_be_selected(capsys: pytest.CaptureFixture[str]):
    main(["demo", "--scenario", "fallback", "--seed", "1"])

    output = capsys.readouterr().out
    assert "Fallback" in output
    assert "Circuit breaker" not in output


@pytest.mark.parametrize("command", ["demo", "experiment"])
def test_help_names_the_scenarios(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    names = SCENARIOS if command == "demo" else Scenario
    assert "|".join(names) in capsys.readouterr().out
