"""Every error of this package.

::

    ResilienceError
    ├── CallTimeoutError             the call took longer than its limit
    ├── FailedResultError            the result of the call counts as a failure
    ├── QueueTimeoutError            the call was not begun: its slot did not come in time, or would not
    ├── StoreUnavailableError        the store of a policy did not answer in time, or not at all
    │   └── StoreRefusedError        the store answers, and refuses
    └── RejectedError                the call was not begun; says when to call again
        ├── CircuitOpenError         the breaker is open, or half-open with all probes under way
        ├── RateLimitedError         the quota is spent
        ├── BulkheadFullError        no permit, and no place in the queue
        ├── QueueFullError           no place in the paced queue
        └── QueueClosedError         the paced queue is closed

An error of the call itself is never wrapped: a retry that gives up raises the last error unchanged.
"""


class ResilienceError(Exception):
    """An error of a policy, as opposed to an error of the call that it ran."""


class CallTimeoutError(ResilienceError):
    """The call took longer than its limit. A cancellation from outside never becomes this error.

    Args:
        seconds: The limit that was exceeded.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the call took longer than {seconds:g} s")
        self.seconds = seconds


class FailedResultError(ResilienceError):
    """A result that counts as a failure, where an error is needed: in events, and for a substitute.

    No policy raises it: the caller of a retry or a hedge gets the last result itself.

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
    """The call was not begun: its slot did not come in time, or would not.

    Args:
        seconds: The longest time that the call may wait.
        retry_after: Seconds after which the same call, nothing else changed, would get its slot in time.
            None where the call has waited and that time is not known.
    """

    def __init__(self, seconds: float, retry_after: float | None = None) -> None:
        super().__init__(f"the slot does not come within {seconds:g} s")
        self.seconds = seconds
        self.retry_after = retry_after


class StoreUnavailableError(ResilienceError):
    """The store in which a policy keeps its state did not answer in time, or not at all.

    Args:
        reason: Why, for a log. It may name the server.
        retry_after: Seconds after which another attempt is worthwhile.
    """

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StoreRefusedError(StoreUnavailableError):
    """The store answers, and refuses: its memory is full, it may not be written to, it is busy."""


class RejectedError(ResilienceError):
    """The call was not begun.

    Args:
        policy: The name of the policy that rejected the call.
        reason: The reason in words.
        retry_after: Seconds after which the same call, nothing else changed, would be let through. None: that
            time is not known, for example while a circuit breaker is held open by hand.
    """

    def __init__(self, policy: str, reason: str, retry_after: float | None) -> None:
        when = "" if retry_after is None else f"; try again in {retry_after:.3f} s"
        super().__init__(f"{policy}: {reason}{when}")
        self.policy = policy
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open, or half-open with all its probes under way."""


class RateLimitedError(RejectedError):
    """The quota is spent."""


class BulkheadFullError(RejectedError):
    """Every permit is in use and the queue is full, or the longest wait is over."""


class QueueFullError(RejectedError):
    """There is no place in the paced queue."""


class QueueClosedError(RejectedError):
    """The paced queue is closed. It has rejected the calls that waited, and rejects all later ones."""
