"""Several observers as one."""

from src.resilience.events import each


def test_every_one_is_told_the_same_in_order():
    told = []
    each(lambda a, b: told.append((1, a, b)), lambda a, b: told.append((2, a, b)))("x", b="y")
    assert told == [(1, "x", "y"), (2, "x", "y")]


def test_one_that_fails_is_logged_and_the_others_are_told_all_the_same(caplog):
    told = []

    def fail(_):
        raise OSError("disk full")

    each(fail, told.append)("x")
    assert told == ["x"]
    (record,) = caplog.records
    assert "disk full" in str(record.exc_info[1])
