"""prometheus-client, right with several workers: what metrics are made of, and the answer to `GET /metrics`.

With several workers prometheus-client's multiprocess mode keeps each one's figures in a file of a folder that
they share, and adds them up for each answer. It looks for the folder when it is imported, so this module
joins the folder first (`metrics_folder`), and each module that makes a metric imports its kind from here.

A counter outlives the worker that counted, as it has to: the sum never falls. A gauge is read when it is
asked for, from where the fleet agrees on it, and of the readings on file the newest is shown (`mostrecent`),
so nothing has to be cleared away after a worker that died.
"""

import asyncio
import logging
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from src.telemetry.metrics_folder import MULTIPROC_DIR, join_folder

leave_folder = join_folder()
"""To be called when this process counts no more."""

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
from prometheus_client.metrics_core import Metric  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402

__all__ = ["Counter", "Gauge", "Histogram", "exposition", "leave_folder"]

_log = logging.getLogger(__name__)

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
        FolderCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class FolderCollector(MultiProcessCollector):
    """Adds up the files of all workers, but for those that can't be read.

    A file is empty while its worker starts, and may be torn by a full disk. The others are still right.
    """

    def collect(self) -> Iterable[Metric]:
        """Return the sums."""
        try:
            return self._sums(self._files())
        except Exception:  # noqa: BLE001 -- whatever struct, json and the file system raise
            return self._sums(filter(_is_readable, self._files()))

    def _files(self) -> Iterable[str]:
        return map(str, Path(self._path).glob("*.db"))

    def _sums(self, files: Iterable[str]) -> Iterable[Metric]:
        sums: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
        return sums


def _is_readable(file: str) -> bool:
    try:
        MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 -- as above
        _log.warning("metrics_file_unreadable", extra={"file": file, "reason": str(error)})
        return False
    return True
