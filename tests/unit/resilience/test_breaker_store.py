"""The options of a circuit breaker.

What the stores do with them is their contract, tests/contract/test_breaker_store.py.
"""

import math

import pytest

from src.resilience.circuit_breaker.options import CircuitBreakerOptions


def test_the_default_options_are_valid():
    options = CircuitBreakerOptions()
    assert (options.failures_to_open, options.open_seconds, options.successes_to_close) == (5, 30, 1)


@pytest.mark.parametrize(
    "rate", [{"failure_rate_threshold": 0.5}, {"slow_call_rate_threshold": 0.5, "slow_call_seconds": 1}]
)
def test_with_a_rate_consecutive_failures_count_only_if_set(rate):
    assert CircuitBreakerOptions(**rate).failures_to_open is None
    assert CircuitBreakerOptions(failure_threshold=5, **rate).failures_to_open == 5


@pytest.mark.parametrize(
    ("lease", "open_time", "renewal"), [(15, 30, 15), (35, 30, 30), (15, 0.5, 1), (0.1, 0.01, 0.1)]
)
def test_a_probes_lease_must_be_shorter_than_the_open_time(lease, open_time, renewal):
    options = CircuitBreakerOptions(probe_lease_seconds=lease, open_seconds=open_time)
    assert options.probe_renewal_seconds == renewal


@pytest.mark.parametrize(
    "option",
    [
        "failure_threshold",
        "failures_in_window",
        "window_calls",
        "minimum_calls",
        "half_open_permits",
        "half_open_successes",
    ],
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_count_is_at_least_one(option, value):
    with pytest.raises(ValueError, match=f"^{option} must be at least 1"):
        CircuitBreakerOptions(**{option: value})


@pytest.mark.parametrize(
    "option", ["failure_rate_threshold", "slow_call_rate_threshold", "half_open_success_rate"]
)
@pytest.mark.parametrize("value", [0, -0.1, 1.1, math.nan])
def test_a_rate_is_above_0_and_at_most_1(option, value):
    with pytest.raises(ValueError, match=f"^{option} must be above 0"):
        CircuitBreakerOptions(**{option: value})


@pytest.mark.parametrize(
    "option",
    ["slow_call_seconds", "window_seconds", "open_seconds", "open_seconds_max", "probe_lease_seconds"],
)
@pytest.mark.parametrize("value", [0, -1, 0.0009, math.inf, math.nan])
def test_a_duration_is_finite_and_at_least_a_millisecond(option, value):
    with pytest.raises(ValueError, match=f"^{option} must be finite"):
        CircuitBreakerOptions(**{option: value})


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("slow_call_seconds", {"slow_call_rate_threshold": 0.5}),
        ("slow_call_seconds", {"slow_call_seconds": 1}),
        ("minimum_calls", {"minimum_calls": 11, "window_calls": 10, "failure_rate_threshold": 0.5}),
        ("failures_in_window", {"failures_in_window": 11, "window_calls": 10}),
        ("open_seconds_of", {"open_seconds_of": lambda _: 0.0}),
        ("open_seconds_of", {"open_seconds_of": float, "open_seconds_factor": 2, "open_seconds_max": 60}),
        ("open_seconds_factor", {"open_seconds_factor": 0.5, "open_seconds_max": 60}),
        ("open_seconds_factor", {"open_seconds_factor": math.nan, "open_seconds_max": 60}),
        ("open_seconds_factor", {"open_seconds_factor": math.inf, "open_seconds_max": 60}),
        ("open_seconds_max", {"open_seconds_factor": 2}),
        ("open_seconds_max", {"open_seconds_max": 29}),
        ("half_open_successes", {"half_open_permits": 2, "half_open_successes": 3}),
        ("half_open_success_rate", {"half_open_success_rate": 0.5, "half_open_successes": 1}),
    ],
)
def test_an_error_names_options_that_contradict_each_other(option, options):
    with pytest.raises(ValueError, match=f"^{option} "):
        CircuitBreakerOptions(**options)


@pytest.mark.parametrize(
    ("rate", "permits", "successes"),
    [
        (0.5, 2, 1),
        (0.5, 3, 2),  # rounded up
        (1, 3, 3),
        (0.01, 3, 1),  # never none at all
        (0.7, 10, 7),
        (0.07, 100, 7),  # the result of float arithmetic would be 7.000000000000001
        (0.29, 100, 29),
        (2 / 3, 3, 2),
        (1 - 1 / 3, 3, 2),
    ],
)
def test_a_share_of_the_probes_is_rounded_to_a_number_of_probes(rate, permits, successes):
    options = CircuitBreakerOptions(half_open_success_rate=rate, half_open_permits=permits)
    assert options.successes_to_close == successes


def test_equal_thresholds_of_every_kind_are_valid():
    CircuitBreakerOptions(
        failure_threshold=1, failure_rate_threshold=1, slow_call_rate_threshold=1, slow_call_seconds=1
    )
