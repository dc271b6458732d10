"""What the scripts that store points are told of them: the arguments of `points.lua`."""

import logging
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from src.analytics.fold import Bucket, Fold, fold
from src.analytics.points import Point
from src.analytics.window import HOUR_US
from src.storage.metrics.layout import rollup_place, sketch_place
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import CALL_TIMEOUT_SECONDS

_log = logging.getLogger(__name__)

SKETCH_SECONDS = 25 * 3600
"""How long a bucket's sketch outlives the bucket: the longest window, and an hour for clocks that differ."""

FEW_TYPES = 200
TYPES_PER_SECOND = 4_000
"""How long points of more types than a few may take; Redis was measured at 10,000 a second and more.

A batch is all or nothing, so it is one script, and Redis answers nobody while that runs. With many thousands
of types that may be longer than `CALL_TIMEOUT_SECONDS`; other workers, who know nothing of the batch, then
say that Redis does not answer, until it does again.
"""


class MetricWrite(NamedTuple):
    """Points as a script is told them.

    Attributes:
        arguments: Of the script.
        timeout_seconds: How long it may take, where that is longer than other commands may.
    """

    arguments: list[Argument]
    timeout_seconds: float | None


def metric_write(points: Sequence[Point], now: float, retention_seconds: int) -> MetricWrite:
    """Return what a script is told of points.

    Args:
        points: In order of arrival.
        now: Unix time; buckets are too old for a sketch `SKETCH_SECONDS` after their end.
        retention_seconds: How long points are kept after the end of their hour or day; 0 for ever.
    """
    folds = fold(points, round(now * 1e6) - SKETCH_SECONDS * 1_000_000)
    arguments: list[Argument] = [retention_seconds, len(folds)]
    for name, folded in folds.items():
        arguments += _fold_arguments(name, folded, retention_seconds)
    # Each type costs Redis some 0.1 ms, however few its points are.
    seconds = None if len(folds) <= FEW_TYPES else CALL_TIMEOUT_SECONDS + len(folds) / TYPES_PER_SECOND
    return MetricWrite(arguments, seconds)


def is_unfinished(reply: Reply) -> bool:
    """Return whether a script replies that Redis stopped it after its first write: a text, the reason.

    Then it is not known what is stored. The reason is logged, as every check before the write has passed.
    """
    if not isinstance(reply, bytes):
        return False
    _log.error("metric_write_unfinished", extra={"reason": reply.decode(errors="replace")})
    return True


def _fold_arguments(name: str, folded: Fold, retention_seconds: int) -> list[Argument]:
    arguments: list[Argument] = [name, folded.total.latest_us, folded.total.count, len(folded.rollups)]
    for rollup, buckets in folded.rollups:
        arguments += (_rollup_places(buckets, retention_seconds), rollup.encode())
    arguments.append(len(folded.sketches))
    for pages, buckets in folded.sketches:
        arguments += (_sketch_places(buckets), len(pages))
        arguments += chain.from_iterable(pages.items())
    arguments.append(len(folded.hours))
    for hour, (offsets, values) in folded.hours.items():
        arguments += (hour, _expiry((hour + 1) * HOUR_US, retention_seconds))
        arguments += ("%010d" * len(offsets) % tuple(offsets), struct.pack(f">{len(values)}d", *values))
    return arguments


# Nearly all points are of one minute at a time, and so of the same buckets.


@lru_cache
def _rollup_places(buckets: tuple[Bucket, ...], retention_seconds: int) -> str:
    places = [rollup_place(*bucket) for bucket in buckets]
    return " ".join(f"{suffix} {_expiry(end, retention_seconds)} {field}" for suffix, field, end in places)


@lru_cache
def _sketch_places(buckets: tuple[Bucket, ...]) -> str:
    places = [sketch_place(*bucket) for bucket in buckets]
    return " ".join(f"{suffix} {_expiry(end, SKETCH_SECONDS)}" for suffix, end in places)


def _expiry(end_us: int | None, seconds: int) -> str:
    """Return when something expires that is kept for so many seconds after its end; 0 is for ever."""
    return "-" if end_us is None or not seconds else str(end_us // 1_000_000 + seconds)
