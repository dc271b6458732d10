"""Every error of this package.

::

    ResilienceError
    ├── CallTimeoutError             the call took longer than its limit
    ├── FailedResultError            the result of the call counts as a failure
    ├── QueueTimeoutError            the call was not begun: its wait for a slot is or would be too long
    ├── StoreUnavailableError        the store of a policy did not answer, or not in time
    │   └── StoreRefusedError        the store answered, and refused the request
    └── RejectedError                the call was not begun; the error says when to call again
        ├── CircuitOpenError         the breaker is open, or half-open and all probes running
        ├── RateLimitedError         the quota is used up
        ├── BulkheadFullError        all permits are in use, and the queue is full
        ├── QueueFullError           the paced queue is full
        ├── QueueClosedError         the paced queue is closed
        └── AttemptRefusedError      another attempt of the call must not be made

An error of the call itself is never wrapped: a retry that gives up raises the last error unchanged.

All errors can be copied and pickled, for example for a pool of processes.
"""


class ResilienceError(Exception):
    """The base of all errors that policies raise themselves. Errors of the call have other types."""

    def __reduce__(self) -> tuple[object, ...]:
        """Describe the copy for `copy` and `pickle`, made without `__init__`, whose arguments are others."""
        return _new_error, (type(self), *self.args), vars(self)


def _new_error(kind: type[ResilienceError], *args: object) -> ResilienceError:
    return kind.__new__(kind, *args)


class CallTimeoutError(ResilienceError):
    """The call took longer than its limit. A cancellation from outside is not converted into this error.

    Args:
        seconds: The limit in seconds.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the call took longer than {seconds:g} s")
        self.seconds = seconds


class FailedResultError(ResilienceError):
    """Represents a result that counts as a failure, in events and in the arguments of a fallback.

    No policy raises this error: the caller of a retry or a hedge gets the last result itself.

    Args:
        result: The result of the call.
    """

    def __init__(self, result: object) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        """Return a message with the first characters of the result."""
        return f"the result counts as a failure: {self.result!r:.100}"


class QueueTimeoutError(ResilienceError):
    """The call was not begun: its wait for a slot was too long, or would have been too long.

    Args:
        seconds: The longest time that the call may wait.
        retry_after: Seconds after which the same call would get its slot in time, if nothing else changes.
            None: the call has waited, and the time is not known.
    """

    def __init__(self, seconds: float, retry_after: float | None = None) -> None:
        super().__init__(f"the slot does not come within {seconds:g} s")
        self.seconds = seconds
        self.retry_after = retry_after


class StoreUnavailableError(ResilienceError):
    """The store of a policy's state did not answer, or not in time.

    Args:
        reason: The reason, for a log. It may name the server.
        retry_after: Seconds after which another attempt is reasonable.
    """

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StoreRefusedError(StoreUnavailableError):
    """The store answered, and refused the request: its memory is full, it is read-only, or it is busy."""


class RejectedError(ResilienceError):
    """The call was not begun.

    Args:
        policy: The name of the policy that rejected the call.
        reason: The reason, as a text.
        retry_after: Seconds after which the same call would be admitted, if nothing else changes. None: the
            time is not known, for example while a circuit breaker is forced open.
    """

    def __init__(self, policy: str, reason: str, retry_after: float | None) -> None:
        when = "" if retry_after is None else f"; try again in {retry_after:.3f} s"
        super().__init__(f"{policy}: {reason}{when}")
        self.policy = policy
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open, or half-open with all its probes running."""


class RateLimitedError(RejectedError):
    """The quota is used up."""


class BulkheadFullError(RejectedError):
    """Every permit is in use, and the queue is full or the longest wait is over."""


class QueueFullError(RejectedError):
    """The paced queue is full."""


class QueueClosedError(RejectedError):
    """The paced queue is closed. It has rejected the calls that waited, and rejects all later ones."""


class AttemptRefusedError(RejectedError):
    """Another attempt of a call must not be made, because an earlier attempt may have had its effect.

    A call raises it instead of beginning that attempt. `Retry` then ends with the outcome of the attempt
    before.
    """
