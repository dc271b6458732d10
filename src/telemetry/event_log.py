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
    """Log `event` at the level it deserves.

    A breaker that changes its state is a warning. What happens with every request, or with every one while
    too many come, is for debugging only: the request's own line tells how it was answered, and a limiter that
    fails open says so itself, once.
    """
    level = logging.DEBUG if is_coalesced(event) else _LEVELS.get(type(event), logging.INFO)
    if not _log.isEnabledFor(level):
        return
    told = event.details()
    if isinstance(error := told.get("error"), BaseException):
        told["error"] = f"{type(error).__name__}: {error}"
    _log.log(level, type(event).__name__, extra=told)
