"""Several observers as one."""

import logging
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

_log = logging.getLogger(__name__)


def each(*observers: Callable[P, object]) -> Callable[P, None]:
    """Return what tells every one of `observers`, in order, and logs what one of them raises."""

    def observe(*args: P.args, **kwargs: P.kwargs) -> None:
        for tell in observers:
            try:
                tell(*args, **kwargs)
            except Exception:  # noqa: BLE001 -- its own affair: the others are told all the same
                _log.exception("an observer failed")

    return observe
