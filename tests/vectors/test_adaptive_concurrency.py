"""The limits of Envoy's gradient controller and of this library, for the same measurements."""

import pytest

from src.resilience.adaptive_concurrency import Gradient, Round


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
