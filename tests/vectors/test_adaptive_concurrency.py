"""The limits of Envoy's gradient controller and of this library, for the same measurements."""

import pytest

from src.resilience.adaptive_concurrency import Aimd, Gradient, Round


@pytest.mark.parametrize(
    ("limit", "latency", "expected"),
    [
        (100, 1.25, 110),  # gradient 1: √100 of headroom
        (100, 2.5, 57),  # gradient 0.5: 50 + √50
        (100, 25.0, 57),  # no steeper than 0.5
        (100, 0.5, 214),  # no steeper than 2: 200 + √200
        (4, 25.0, 3),
        (3, 25.0, 2),
        (2, 25.0, 2),
    ],
)
def test_envoys_gradient_controller_adds_the_root_of_the_new_limit(limit, latency, expected):
    """`GradientController::calculateNewLimit`: new = limit · gradient + √(limit · gradient), buffer 25 %."""
    gradient = Gradient(tolerance=0.25)
    gradient.next_limit(limit, Round([1.0]))  # begins to measure
    assert gradient.next_limit(1, Round([1.0])) == limit
    assert int(gradient.next_limit(limit, Round([latency], was_full=True))) == expected


@pytest.mark.parametrize(
    ("limit", "ended", "expected"),
    [
        (20, Round([0.01], was_full=True), 21),  # increaseOnSuccess
        (30, Round([0.01], failures=1), 27),  # decreaseOnDrops
        (30, Round([10.0], was_full=True), 27),  # a sample above the timeout is a drop
        # Netflix raises the limit when half of it is in use. Ours does when all of it is, as RFC 7661 asks.
        (20, Round([0.01]), 20),
    ],
)
def test_netflix_aimd_limit_adds_one_and_takes_a_tenth(limit, ended, expected):
    """`AIMDLimit` of concurrency-limits, with its default backoff ratio of 0.9 and timeout of 5 s."""
    assert int(Aimd(target_seconds=5.0, backoff=0.9).next_limit(limit, ended)) == expected
