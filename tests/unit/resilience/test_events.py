"""The function that calls several observers."""

from src.resilience.events import each


def test_all_observers_are_called_in_order():
    told = []
    each(lambda a, b: told.append((1, a, b)), lambda a, b: told.append((2, a, b)))("x", b="y")
    assert told == [(1, "x", "y"), (2, "x", "y")]


def test_an_error_of_an_observer_is_logged_and_the_others_are_called(caplog):
    told = []

    def fail(_):
        raise OSError("disk full")

    each(fail, told.append)("x")
    assert told == ["x"]
    (record,) = caplog.records
    assert "disk full" in str(record.exc_info[1])
