"""Restores the configuration of the logging module after a test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def restore_logging() -> Iterator[None]:
    """Restore the root logger and structlog at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)  # not by assignment, since loggers cache their level
        structlog.reset_defaults()
