"""What a use case can raise besides the errors of the resilience patterns."""

from src.resilience.errors import StoreRefusedError, StoreUnavailableError


class ServiceError(Exception):
    """The base of them all."""


class StorageUnavailableError(StoreUnavailableError, ServiceError):
    """The store did not answer in time, or not at all. The reason is for the log, never for a client."""


class StorageRefusedError(StoreRefusedError, StorageUnavailableError):
    """The store answers, and refuses: its memory is full, it may not be written to, it is busy."""
