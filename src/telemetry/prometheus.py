"""Prometheus metrics, right with several workers.

With several workers prometheus-client's multiprocess mode keeps each one's figures in a file of a folder that
they share, and adds them up when asked. It looks for the folder when it is imported, so this module names it
first: `python -m src` makes one for its workers, any other parent's workers find one by the parent's pid.
"""

import multiprocessing
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"


def _share_a_folder() -> None:
    parent = multiprocessing.parent_process()
    if MULTIPROC_DIR in os.environ or parent is None:
        return
    folder = Path(tempfile.gettempdir()) / f"resilient-analytics-{parent.pid}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()  # /tmp is everybody's: the name may have been taken
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise PermissionError(f"{folder} is somebody else's; set {MULTIPROC_DIR}")
    os.environ[MULTIPROC_DIR] = str(folder)


_share_a_folder()

from prometheus_client import (  # noqa: E402 -- see above
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402

from src.resilience.events import CacheAnswered, Event, StateChanged  # noqa: E402

_requests = Counter("http_requests_total", "Answered requests", ["method", "route", "status"])
_seconds = Histogram(
    "http_request_duration_seconds",
    "From the request's arrival to the end of the answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_events = Counter(
    "resilience_events_total", "Decisions of the resilience patterns", ["policy", "event", "detail"]
)


_request_counter = cache(_requests.labels)
_request_seconds = cache(_seconds.labels)
_event_counter = cache(_events.labels)
"""To look a child up by its labels costs as much as to count, and there are few of them."""


def observe_request(method: str, route: str, path: str, status: int, seconds: float) -> None:  # noqa: ARG001
    """Count one answered request."""
    known = method if method in {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"} else "other"
    _request_counter(known, route, status).inc()
    _request_seconds(known, route).observe(seconds)


def count_event(event: Event) -> None:
    """Be the listener that counts."""
    match event:
        case StateChanged():
            detail = f"{event.before}->{event.after}"
        case CacheAnswered():
            detail = event.outcome
        case _:
            detail = ""
    _event_counter(event.policy, type(event).__name__, detail).inc()


def exposition() -> tuple[bytes, str]:
    """Return all workers' metrics in Prometheus' text format, and its content type."""
    registry = REGISTRY
    if MULTIPROC_DIR in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
