"""The steps of a period: aligned to 1970 and limited to the period."""

import pytest

from src.analytics.series import Steps
from src.analytics.window import Window


def test_between_multiples_of_the_step_every_step_is_whole():
    steps = Steps(120, 300, 60)
    assert len(steps) == 3
    assert list(steps.times()) == [120, 180, 240]
    assert list(steps.windows()) == [Window(119, 179), Window(179, 239), Window(239, 299)]


def test_the_first_and_the_last_step_are_limited_to_the_period():
    steps = Steps(130, 250, 60)
    assert len(steps) == 3
    assert list(steps.times()) == [120, 180, 240]
    assert list(steps.windows()) == [Window(129, 179), Window(179, 239), Window(239, 249)]


def test_a_period_within_one_step_has_one_step():
    steps = Steps(130, 131, 60)
    assert (len(steps), list(steps.times()), list(steps.windows())) == (1, [120], [Window(129, 130)])


def test_before_1970_steps_begin_at_multiples_as_well():
    assert list(Steps(-70, 10, 60).times()) == [-120, -60, 0]


@pytest.mark.parametrize("stretch", [(10, 10, 1), (11, 10, 1), (0, 10, 0)])
def test_an_empty_period_and_an_empty_step_are_rejected(stretch):
    with pytest.raises(ValueError, match="must be"):
        Steps(*stretch)
