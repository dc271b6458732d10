"""prometheus-client, right with several workers: what metrics are made of, and the answer to `GET /metrics`.

With several workers prometheus-client's multiprocess mode keeps each one's figures in a file of a folder that
they share, and adds them up when asked. It looks for the folder when it is imported, so this module names it
first, and whoever makes a metric imports its kind from here: `python -m src` makes a folder for its workers,
any other parent's workers find one by the key that they have of it. Not by its pid: that comes again one day,
and with it the figures of a fleet long gone.

A counter outlives the worker that counted, as it has to: the sum never falls. A gauge is read when it is
asked for, from where the fleet agrees on it, and of the readings on file the newest is shown (`mostrecent`),
so nothing has to be cleared away after a worker that died.
"""

import asyncio
import hashlib
import multiprocessing
import os
import stat
import tempfile
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"


def _share_a_folder() -> None:
    parent = multiprocessing.parent_process()
    if MULTIPROC_DIR in os.environ or parent is None:
        return
    key = hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()  # drawn anew by each parent
    folder = Path(tempfile.gettempdir()) / f"resilient-analytics-{key[:32]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()  # /tmp is everybody's: the name may have been taken
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise PermissionError(f"{folder} is somebody else's; set {MULTIPROC_DIR}")
    os.environ[MULTIPROC_DIR] = str(folder)


_share_a_folder()

import prometheus_client  # noqa: E402 -- see above
from prometheus_client import (  # noqa: E402
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402

__all__ = ["MULTIPROC_DIR", "Counter", "Gauge", "Histogram", "exposition"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which several workers would not have


class Histogram(prometheus_client.Histogram):
    """prometheus-client's own, which can be told of many observations at once."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe each of `amounts`: what `observe` does, once a bucket and not once an amount."""
        tally: defaultdict[int, int] = defaultdict(int)
        for amount in amounts:
            tally[bisect_left(self._upper_bounds, amount)] += 1
        for place, times in tally.items():
            self._buckets[place].inc(times)
        self._sum.inc(sum(amounts))


async def exposition(*readings: Callable[[], Awaitable[object]]) -> tuple[bytes, str]:
    """Return all workers' metrics in Prometheus' text format, and its content type.

    Args:
        readings: Each brings one gauge up to date first; all are taken side by side.
    """
    await asyncio.gather(*(read() for read in readings))
    registry = REGISTRY
    if MULTIPROC_DIR in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
