"""The windows of the circuit breaker: the calls in them, and the time at which a call leaves."""

import pytest

from src.resilience.circuit_breaker.health_window import CountWindow, Health, TimeWindow

NOTHING = Health(0, 0, 0)


@pytest.fixture
def ten_seconds(clock):
    return TimeWindow(10, clock)


def fill(window, outcomes):
    """Record one call per letter: F is failed, S is slow, B is both, and any other letter is neither."""
    for outcome in outcomes:
        window.record(failed=outcome in "FB", slow=outcome in "SB")


def test_a_new_window_is_empty(ten_seconds):
    assert CountWindow(3).health() == NOTHING
    assert ten_seconds.health() == NOTHING


def test_a_call_can_be_failed_and_slow_at_once(ten_seconds):
    for window in (CountWindow(10), ten_seconds):
        fill(window, "FSB..")
        assert window.health() == Health(calls=5, failures=2, slow=2)


@pytest.mark.parametrize(
    ("outcomes", "health"),
    [
        ("B..", Health(3, 1, 1)),
        ("B...", Health(3, 0, 0)),
        ("...FSB", Health(3, 2, 2)),
        ("F" * 100, Health(3, 3, 0)),
    ],
)
def test_a_count_window_contains_only_the_last_calls(outcomes, health):
    window = CountWindow(3)
    fill(window, outcomes)
    assert window.health() == health


def test_a_count_window_of_one_holds_the_last_call():
    window = CountWindow(1)
    fill(window, "F.")
    assert window.health() == Health(1, 0, 0)


def test_a_time_window_contains_calls_younger_than_nine_tenths_of_its_length(ten_seconds, clock):
    clock.jump(0.75)
    fill(ten_seconds, "F")
    clock.jump(9)
    assert ten_seconds.health() == Health(1, 1, 0)


def test_a_time_window_contains_no_call_as_old_as_its_length(ten_seconds, clock):
    for age in (0.0, 0.25, 0.75):
        clock.jump(age)
        fill(ten_seconds, "F")
    clock.jump(10)
    assert ten_seconds.health() == NOTHING


def test_a_time_window_forgets_bucket_by_bucket(ten_seconds, clock):
    for _ in range(10):
        fill(ten_seconds, "F.")
        clock.jump(1)
    seen = []
    for _ in range(10):
        seen.append(ten_seconds.health().calls)
        clock.jump(1)
    assert seen == [18, 16, 14, 12, 10, 8, 6, 4, 2, 0]


def test_a_time_window_is_empty_after_a_long_pause(ten_seconds, clock):
    fill(ten_seconds, "FFF")
    clock.jump(3600)
    fill(ten_seconds, ".")
    assert ten_seconds.health() == Health(1, 0, 0)
