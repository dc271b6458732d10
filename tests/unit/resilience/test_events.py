"""The function that calls several observers."""

from src.resilience.events import each


def test_all_observers_are_called_in_order():
    received = []
    each(lambda a, b: received.append((1, a, b)), lambda a, b: received.append((2, a, b)))("x", b="y")
    assert received == [(1, "x", "y"), (2, "x", "y")]


def test_an_error_of_an_observer_is_logged_and_the_others_are_called(caplog):
    received = []

    def fail(_):
        raise OSError("disk full")

    each(fail, received.append)("x")
    assert received == ["x"]
    (record,) = caplog.records
    assert "disk full" in str(record.exc_info[1])
