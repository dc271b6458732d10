"""The schedule of failed calls."""

import random

import pytest
from pydantic import ValidationError

from src.provider.faults import Faults, FaultSchedule
from tests.support.clock import FakeRandomizer


def outcomes(schedule: FaultSchedule, count: int) -> str:
    return "".join("F" if schedule.next_call_fails() else "S" for _ in range(count))


def schedule_of(faults: Faults, draws=(0.5,)) -> FaultSchedule:
    return FaultSchedule(faults, FakeRandomizer(draws).random)


def test_a_call_fails_if_its_random_number_is_below_the_rate():
    assert outcomes(schedule_of(Faults(failure_rate=0.3), [0.29, 0.3, 0.0, 0.99]), 4) == "FSFS"


@pytest.mark.parametrize(("rate", "expected"), [(0, "SSS"), (1, "FFF")])
def test_the_rates_0_and_1_are_deterministic(rate, expected):
    assert outcomes(schedule_of(Faults(failure_rate=rate), [0.0, 0.5, 1 - 2**-53]), 3) == expected


def test_equal_seeds_fail_the_same_calls():
    first, second = (FaultSchedule(Faults(failure_rate=0.3), random.Random(7).random) for _ in range(2))
    assert outcomes(first, 50) == outcomes(second, 50)


def test_a_pattern_repeats_and_overrides_the_rate():
    assert outcomes(schedule_of(Faults(failure_rate=1, pattern="SSFFF")), 12) == "SSFFFSSFFFSS"


def test_a_change_of_another_fault_keeps_the_position_in_the_pattern():
    schedule = schedule_of(Faults(pattern="SF"))
    outcomes(schedule, 1)
    schedule.change(Faults(latency_ms=10))
    assert outcomes(schedule, 1) == "F"
    assert schedule.faults == Faults(pattern="SF", latency_ms=10)


def test_a_pattern_sent_again_starts_from_its_beginning():
    schedule = schedule_of(Faults(pattern="SF"))
    outcomes(schedule, 1)
    schedule.change(Faults(pattern="SF"))
    assert outcomes(schedule, 2) == "SF"


@pytest.mark.parametrize("nothing", ["", None])
def test_without_a_pattern_the_rate_applies_again(nothing):
    schedule = schedule_of(Faults(failure_rate=1, pattern="S"))
    schedule.change(Faults(pattern=nothing))
    assert schedule.faults.pattern is None
    assert outcomes(schedule, 2) == "FF"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_rate", -0.1),
        ("failure_rate", 1.1),
        ("failure_rate", float("nan")),
        ("failure_rate", True),
        ("failure_rate", "0.3"),
        ("latency_ms", -1),
        ("latency_ms", 60_001),
        ("status", 399),
        ("status", 600),
        ("pattern", "SSX"),
        ("pattern", "SF\n"),
        ("pattern", "S" * 1001),
        ("kind", "explode"),
        ("patern", "SF"),
    ],
)
def test_an_error_names_the_value_out_of_range(field, value):
    with pytest.raises(ValidationError) as refusal:
        Faults.model_validate({field: value})
    assert refusal.value.errors()[0]["loc"][0] == field
