"""What a use case can raise besides the errors of the resilience patterns."""


class ServiceError(Exception):
    """The base of them all."""


class StorageUnavailableError(ServiceError):
    """The store did not answer in time, or not at all.

    Args:
        reason: Why, for the log; never shown to a caller.
        retry_after: Seconds after which a new try is worthwhile.
    """

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StorageRefusedError(StorageUnavailableError):
    """The store answers, and refuses: its memory is full, it may not be written to, it is busy."""
