"""The base class of the services' errors, and the errors of their stores."""

from src.resilience.errors import StoreRefusedError, StoreUnavailableError


class ServiceError(Exception):
    """The base class of all errors of the services."""


class StorageUnavailableError(StoreUnavailableError, ServiceError):
    """The store did not reply in time. The message is for the log, and clients do not see it."""


class OutcomeUnknownError(StorageUnavailableError):
    """The store did not answer a command that may have reached it: the command may have been carried out."""


class WriteUnconfirmedError(StorageUnavailableError):
    """It is not known whether the measurements of a write are stored."""


class StorageRefusedError(StoreRefusedError, StorageUnavailableError):
    """The store replied and rejected the command: it is full, read-only, or busy."""
