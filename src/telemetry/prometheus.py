"""The classes of the instruments, and the answer to `GET /metrics`, which is correct with several workers.

With several workers, prometheus-client's multiprocess mode keeps the figures of each worker in a file of a
shared folder, and adds the files up for each answer. prometheus-client looks for the folder when it is
imported. This module therefore joins the folder first (`metrics_folder`), and all other modules import the
classes from this module.

The file of a worker remains after the worker's end, so that a counter never falls. A gauge is updated for
each answer from the state that all workers share, and the most recent value counts (`mostrecent`), so the
file of a dead worker does no harm.
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
"""Must be called when this process stops counting."""

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

disable_created_metrics()  # type: ignore[no-untyped-call]  # the multiprocess mode lacks the `_created` series


class Histogram(prometheus_client.Histogram):
    """prometheus-client's histogram, which can also observe many values at once."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe each of `amounts`. Each bucket is updated once, and not once per amount."""
        counts: defaultdict[int, int] = defaultdict(int)
        for amount in amounts:
            counts[bisect_left(self._upper_bounds, amount)] += 1
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)
        self._sum.inc(sum(amounts))


async def exposition(*updates: Callable[[], Awaitable[object]]) -> tuple[bytes, str]:
    """Return the metrics of all workers in Prometheus' text format, and its content type.

    Args:
        updates: Functions that update the gauges. They run concurrently, before the metrics are collected.
    """
    await asyncio.gather(*(update() for update in updates))
    registry = REGISTRY
    if MULTIPROC_DIR in os.environ:
        registry = CollectorRegistry()
        FolderCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class FolderCollector(MultiProcessCollector):
    """Adds up the readable files of all workers.

    A file is empty while its worker starts, and a full disk can truncate a file.
    """

    def collect(self) -> Iterable[Metric]:
        """Return the sums of all metrics."""
        try:
            return self._sums(self._files())
        except Exception:  # noqa: BLE001 -- struct, json and the file system raise many kinds
            return self._sums(filter(_is_readable, self._files()))

    def _files(self) -> Iterable[str]:
        return map(str, Path(self._path).glob("*.db"))

    def _sums(self, files: Iterable[str]) -> Iterable[Metric]:
        sums: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
        return sums


def _is_readable(file: str) -> bool:
    try:
        MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 -- struct, json and the file system raise many kinds
        _log.warning("metrics_file_unreadable", extra={"file": file, "reason": str(error)})
        return False
    return True
