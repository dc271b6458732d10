"""Measurements that the host disturbed are repeated."""

from bench.processes import mean_stolen
from bench.undisturbed import Undisturbed


class Machine:
    """A machine whose host steals the given share of each measurement, in order."""

    def __init__(self, *shares):
        self.stolen = 0.0
        self.shares = iter(shares)
        self.made = 0

    def make(self):
        self.made += 1
        self.stolen += next(self.shares)
        return self.made

    def measured(self):
        undisturbed = Undisturbed(lambda: self.stolen, lambda: float(self.made))
        return undisturbed.measure(self.make), undisturbed.repeated


def test_an_undisturbed_measurement_is_used():
    assert Machine(0.0).measured() == (1, 0)
    assert Machine(0.019).measured() == (1, 0)


def test_a_disturbed_measurement_is_repeated():
    assert Machine(0.5, 0.002).measured() == (2, 1)


def test_of_disturbed_measurements_the_least_disturbed_is_used():
    assert Machine(0.5, 0.3).measured() == (2, 1)
    assert Machine(0.3, 0.5).measured() == (1, 1)


def test_the_stolen_time_is_the_mean_of_the_given_cores():
    stat = "cpu  1 2 3 4 5 6 7 900 0 0\ncpu0 1 2 3 4 5 6 7 100 0 0\ncpu1 1 2 3 4 5 6 7 300 0 0\nintr 5\n"
    assert mean_stolen(stat, frozenset({0, 1})) == 2.0
    assert mean_stolen(stat, frozenset({1})) == 3.0
