"""What the patterns report: one frozen record for each decision, handed to a listener.

A policy calls its listener after it has decided and outside anything it holds, so a listener can be slow or
broken and harms nobody: what it raises is logged here and goes no further. Adapters that turn events into
logs, metrics or a stream live outside this package.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of every event.

    Attributes:
        policy: Name of the policy that decided, such as "external-service".
    """

    policy: str


class Listener(Protocol):
    """Somebody who wants to know."""

    def __call__(self, event: Event) -> None:
        """Take note of `event`. Must not block: it runs on the event loop, in the caller's way."""
        ...


def ignore(_event: Event) -> None:
    """Be the listener who does not want to know."""


class Listeners:
    """Several listeners as one, told in order.

    Args:
        listeners: Each is told every event, whatever the others do.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def __call__(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            notify(listener, event)


def notify(listener: Listener, event: Event) -> None:
    """Tell `listener` of `event`, and log whatever it raises."""
    try:
        listener(event)
    except Exception:  # noqa: BLE001 -- whatever a listener does wrong stays its own affair
        _log.exception("a listener failed on %s", type(event).__name__)
