"""Every error of this package.

::

    ResilienceError
    ├── CallTimeoutError             the call took longer than it was given
    ├── QueueTimeoutError            the call was not begun: its turn did not come in time, or would not
    ├── StoreUnavailableError        the store of a policy did not answer in time, or not at all
    │   └── StoreRefusedError        the store answers, and refuses
    └── RejectedError                the call was not begun; says when to come back
        ├── CircuitOpenError         the breaker is open, or its probes are all out
        ├── RateLimitedError         the quota is spent
        ├── BulkheadFullError        no permit, and no place in the waiting line
        ├── QueueFullError           no place in the paced line
        └── QueueClosedError         the paced line takes nobody any more

An error of the call itself is never wrapped: a retry that gives up raises the last one as it came.
"""


class ResilienceError(Exception):
    """An error of a policy, as opposed to an error of the call that it ran."""


class CallTimeoutError(ResilienceError):
    """The call took longer than it was given. A cancellation from outside is never turned into this.

    Args:
        seconds: The limit that was exceeded.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the call took longer than {seconds:g} s")
        self.seconds = seconds


class QueueTimeoutError(ResilienceError):
    """The call was not begun: its turn did not come in time, or would not.

    Args:
        seconds: The longest that the call may wait.
        retry_after: Seconds after which the same call, nothing else changed, would have its turn in time.
            None where the call has waited and that is not known.
    """

    def __init__(self, seconds: float, retry_after: float | None = None) -> None:
        super().__init__(f"the turn does not come within {seconds:g} s")
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
        policy: Name of the policy that refused.
        reason: Why, in words.
        retry_after: Seconds after which the same call, nothing else changed, would be let through. None: only
            an order lets it through, such as closing a circuit breaker that is held open by hand.
    """

    def __init__(self, policy: str, reason: str, retry_after: float | None) -> None:
        when = "" if retry_after is None else f"; try again in {retry_after:.3f} s"
        super().__init__(f"{policy}: {reason}{when}")
        self.policy = policy
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open, or half-open with every probe out."""


class RateLimitedError(RejectedError):
    """The quota is spent."""


class BulkheadFullError(RejectedError):
    """Every permit is in use and the waiting line is full, or the longest wait is over."""


class QueueFullError(RejectedError):
    """There is no place in the paced line."""


class QueueClosedError(RejectedError):
    """The paced line takes nobody any more, and has turned away those who were in it."""
