"""The listener that writes resilience events to the log."""

import dataclasses

import structlog

from src.resilience.events import Bypassed, CacheAnswered, Event, LimitChanged, StateChanged

_log = structlog.stdlib.get_logger("src.resilience")


def log_event(event: Event) -> None:
    """Log `event` at the level it deserves.

    A breaker that changes its state is a warning. What happens with every request is for debugging only; a
    limiter that fails open says so itself, once.
    """
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    if isinstance(error := fields.get("error"), BaseException):
        fields["error"] = f"{type(error).__name__}: {error}"
    match event:
        case StateChanged():
            log = _log.warning
        case CacheAnswered(outcome="hit" | "miss") | Bypassed() | LimitChanged():
            log = _log.debug
        case _:
            log = _log.info
    log(type(event).__name__, **fields)
