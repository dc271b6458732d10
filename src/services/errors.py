"""The base class of the services' errors, and the errors of their stores."""

from src.resilience.errors import StoreRefusedError, StoreUnavailableError


class ServiceError(Exception):
    """The base class of all errors of the services."""


class StorageUnavailableError(StoreUnavailableError, ServiceError):
    """The store did not reply in time. The message is for the log, and clients do not see it."""


class StorageRefusedError(StoreRefusedError, StorageUnavailableError):
    """The store replied and rejected the command: it is full, read-only, or busy."""
