"""The errors of the package as values: their texts, copies and pickles."""

import copy
import pickle

import pytest

from src.resilience.errors import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    FailedResultError,
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
    RateLimitedError,
    ResilienceError,
    StoreRefusedError,
    StoreUnavailableError,
)

ERRORS = [
    ResilienceError("reason"),
    CallTimeoutError(2.5),
    FailedResultError({"status": 503}),
    QueueTimeoutError(60, 1.5),
    StoreUnavailableError("no answer", 2.0),
    StoreRefusedError("out of memory"),
    *(
        kind("bank", "the reason", 2.5)
        for kind in (
            CircuitOpenError,
            RateLimitedError,
            BulkheadFullError,
            QueueFullError,
            QueueClosedError,
        )
    ),
]


class OrderRejectedError(CircuitOpenError):
    """An error of a program, whose constructor takes other arguments."""

    def __init__(self, order: int) -> None:
        super().__init__("orders", f"order {order} waits", None)
        self.order = order


@pytest.mark.parametrize("error", [*ERRORS, OrderRejectedError(7)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "duplicate", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
def test_a_copy_or_pickle_of_an_error_is_equal_to_it(error, duplicate):
    error.add_note("a note")
    other = duplicate(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
