"""What the script `add_points` is told of the points of one type."""

import struct
from collections.abc import Iterable
from itertools import chain

from src.analytics.fold import Bucket, Fold
from src.analytics.window import HOUR_US
from src.storage.batching import Argument
from src.storage.metric_layout import rollup_place, sketch_place

SKETCH_SECONDS = 25 * 3600
"""How long a bucket's sketch outlives the bucket: the longest window, and an hour for clocks that differ."""


def fold_arguments(name: str, folded: Fold, retention_seconds: int) -> list[Argument]:
    """Return the arguments for one type.

    Args:
        name: Of the type.
        folded: Its points.
        retention_seconds: How long they are kept after the end of their hour or day; 0 for ever.
    """
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


def _rollup_places(buckets: Iterable[Bucket], retention_seconds: int) -> str:
    places = [rollup_place(*bucket) for bucket in buckets]
    return " ".join(f"{suffix} {_expiry(end, retention_seconds)} {field}" for suffix, field, end in places)


def _sketch_places(buckets: Iterable[Bucket]) -> str:
    places = [sketch_place(*bucket) for bucket in buckets]
    return " ".join(f"{suffix} {_expiry(end, SKETCH_SECONDS)}" for suffix, end in places)


def _expiry(end_us: int | None, seconds: int) -> str:
    """Return when something expires that is kept for so many seconds after its end; 0 is for ever."""
    return "-" if end_us is None or not seconds else str(end_us // 1_000_000 + seconds)
