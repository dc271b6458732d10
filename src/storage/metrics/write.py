"""Points as arguments of the scripts that include `metrics_write.lua`."""

from collections.abc import Sequence

import numpy as np

from src.analytics.columns import FEW, MinuteFold, PointColumns, fold, fold_few
from src.analytics.sketch import bins_of, encode_bins
from src.resilience.redis.port import Argument
from src.storage.metrics.series_dictionary import SeriesDictionary


def write_arguments(
    columns: PointColumns, dictionary: SeriesDictionary, retention_seconds: int
) -> list[Argument]:
    """Return the arguments that store the points of one type.

    Args:
        columns: The points, one at least.
        dictionary: The numbers of the type's series. New series get the next free ones.
        retention_seconds: How long the points are kept; 0 is for ever.
    """
    version, new, numbers = "", dict[str, int](), None
    if columns.labels is not None:
        version = dictionary.version
        new = dictionary.numbers_for_new(columns.labels)
        known = dictionary.numbers
        numbers = [known[text] if text in known else new[text] for text in columns.labels]
    folds, entries = _folds(columns, numbers)
    latest_us = int(columns.timestamps_us.max())
    arguments: list[Argument] = [columns.type, retention_seconds, latest_us, version, len(new)]
    for text, number in new.items():
        arguments += (number, text)
    arguments += (entries, len(folds))
    for part in folds:
        arguments += part
    return arguments


def _folds(columns: PointColumns, numbers: Sequence[int] | None) -> tuple[list[MinuteFold], bytes]:
    """Return the points by minute, and the sketch entries of all of them if there are several minutes."""
    _, _, timestamps, values, _ = columns
    if len(values) > FEW:
        series = (
            np.zeros(len(values), dtype=np.uint16) if numbers is None else np.array(numbers, dtype=np.uint16)
        )
        folds = list(fold(timestamps, values, series))
        return folds, encode_bins(bins_of(values)) if len(folds) > 1 else b""
    few = numbers or [0] * len(values)
    folds = fold_few(list(zip(timestamps.tolist(), values.tolist(), few, strict=True)))
    return folds, b"".join(part.entries for part in folds) if len(folds) > 1 else b""
