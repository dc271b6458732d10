"""What the script `add_points` is told of the points of one type."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

from src.analytics.fold import Fold
from src.analytics.window import HOUR_US
from src.storage.batching import Argument
from src.storage.metric_layout import rollup_place, sketch_suffix

SKETCH_SECONDS = 25 * 3600
"""How long a bucket's sketch outlives the bucket: the longest window, and an hour for clocks that differ."""

_NEVER = "-"


def fold_arguments(name: str, folded: Fold, retention_seconds: int) -> Iterator[Argument]:
    """Yield the arguments for one type.

    Args:
        name: Of the type.
        folded: Its points.
        retention_seconds: How long they are kept after the end of their hour or day; 0 for ever.
    """
    yield from (name, folded.total.latest_us, folded.total.count)
    yield from _rollup_arguments(folded, retention_seconds)
    yield from _sketch_arguments(folded)
    yield from _hour_arguments(folded, retention_seconds)


def _rollup_arguments(folded: Fold, retention_seconds: int) -> Iterator[Argument]:
    hashes = defaultdict(list, {("all", _NEVER): [f"all {folded.total.encode()}"]})
    for step, rollups in folded.rollups.items():
        for number, rollup in rollups.items():
            partition, field, end_us = rollup_place(step, number)
            hashes[partition, _expiry(end_us, retention_seconds)].append(f"{field} {rollup.encode()}")
    yield len(hashes)
    for (partition, expiry), lines in hashes.items():
        yield from (partition, expiry, "\n".join(lines))


def _hour_arguments(folded: Fold, retention_seconds: int) -> Iterator[Argument]:
    yield len(folded.hours)
    for hour, (offsets, values) in folded.hours.items():
        yield from (hour, _expiry((hour + 1) * HOUR_US, retention_seconds))
        yield "%010d" * len(offsets) % tuple(offsets)
        yield struct.pack(f">{len(values)}d", *values)


def _expiry(end_us: int, retention_seconds: int) -> str:
    return str(end_us // 1_000_000 + retention_seconds) if retention_seconds else _NEVER


def _sketch_arguments(folded: Fold) -> Iterator[Argument]:
    yield 1 + sum(map(len, folded.sketches.values()))
    yield from ("p:all", _NEVER, len(folded.sketch))
    yield from chain.from_iterable(folded.sketch.items())
    for step, sketches in folded.sketches.items():
        for number, pages in sketches.items():
            expiry = (number + 1) * step // 1_000_000 + SKETCH_SECONDS
            yield from (f"p:{sketch_suffix(step, number)}", expiry, len(pages))
            yield from chain.from_iterable(pages.items())
