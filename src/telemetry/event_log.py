"""The listener that writes resilience events to the log."""

import logging

from src.observation.coalescing import is_coalesced
from src.resilience.events import (
    Bypassed,
    Event,
    LimitChanged,
    Rejected,
    SlotTaken,
    StateChanged,
    Waited,
)

_log = logging.getLogger("src.resilience")


_LEVELS: dict[type[Event], int] = {
    StateChanged: logging.WARNING,
    **dict.fromkeys((Rejected, Bypassed, LimitChanged, SlotTaken, Waited), logging.DEBUG),
}


def log_event(event: Event) -> None:
    """Log `event` at the level of its kind.

    A change of a breaker's state is a warning. Events that nearly every request can cause are at level DEBUG:
    the line of the request has its status, and the admission logs once that it works without Redis.
    """
    level = logging.DEBUG if is_coalesced(event) else _LEVELS.get(type(event), logging.INFO)
    if not _log.isEnabledFor(level):
        return
    details = event.details()
    if isinstance(error := details.get("error"), BaseException):
        details["error"] = f"{type(error).__name__}: {error}"
    _log.log(level, type(event).__name__, extra=details)
