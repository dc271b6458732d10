"""The demonstration on a fake clock."""

import pytest

from src.cli.demo import SCENARIOS, run_demo
from tests.support.clock import FakeClock
from tests.unit.cli.conftest import Terminal


async def output_of(*names: str, seed: int | None = 7) -> Terminal:
    terminal, clock = Terminal(), FakeClock()
    await clock.drive(run_demo(names, terminal, clock, seed))
    return terminal


async def test_the_breaker_opens_rejects_probes_and_closes():
    terminal = await output_of("breaker")

    changes = [line.split("breaker ")[1].split(" (")[0] for line in terminal.lines_with(" -> ")]
    assert changes == [
        "CLOSED -> OPEN",
        "OPEN -> HALF_OPEN",
        "HALF_OPEN -> OPEN",
        "OPEN -> HALF_OPEN",
        "HALF_OPEN -> CLOSED",
    ]
    assert terminal.lines_with("rejected   50, after 0 ms to 0 ms")
    assert terminal.lines_with("calls that reached the provider: 0")


async def test_retries_recover_failed_hanging_and_cut_calls_but_not_rejected_ones():
    terminal = await output_of("retry")

    assert len(terminal.lines_with("/get: ok 200")) == 3
    assert terminal.lines_with("attempt 2: 503; next attempt in")
    assert terminal.lines_with("attempt 1: the call took longer than 0.5 s; next attempt in")
    assert terminal.lines_with("attempt 1: cut off; next attempt in")
    assert terminal.lines_with("/status/400: refused 400, 0 ms")
    assert terminal.lines_with("attempt 3: the call took longer than 0.5 s; no further attempt")
    assert terminal.lines_with("/delay/3: timed out after 0.5 s")


async def test_the_bulkhead_and_the_limiter_admit_the_stated_numbers():
    terminal = await output_of("bulkhead")

    assert terminal.lines_with("ok         15, after 500 ms to 1500 ms")
    assert terminal.lines_with("rejected    5, after 0 ms to 0 ms")
    assert terminal.lines_with("ok         19, after 0 ms to 900 ms")
    assert terminal.lines_with("rejected   11, after")
    assert terminal.lines_with("ok         60, after 200 ms to")


async def test_the_fallback_answers_for_a_failing_provider_and_for_an_open_breaker():
    terminal = await output_of("fallback")

    assert len(terminal.lines_with("ok 200")) == 7
    assert len(terminal.lines_with("fallback answers (503)")) == 3
    assert len(terminal.lines_with("fallback answers (rejected by breaker)")) == 2


async def test_the_whole_demo_takes_less_than_half_a_minute():
    terminal = await output_of(*SCENARIOS, seed=None)

    (last,) = terminal.lines_with("Done in")
    assert float(last.split()[2]) < 25


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_scenario_prints_the_same_each_time(name: str):
    assert (await output_of(name)).text == (await output_of(name)).text


async def test_a_scenario_prints_the_same_after_any_other_scenario():
    alone, after_another = await output_of("retry"), await output_of("breaker", "retry")

    story = alone.text.rpartition("\nDone in")[0]
    assert story in after_another.text


async def test_no_line_is_wider_than_80_columns():
    terminal = await output_of(*SCENARIOS)

    assert max(len(line) for line in terminal.text.splitlines()) <= 80
