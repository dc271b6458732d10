"""Points as arguments of the scripts that include `metrics_write.lua`."""

from collections.abc import Mapping, Sequence

import numpy as np

from src.analytics.columns import FEW, PointColumns, TypeFold, fold, fold_few
from src.resilience.redis.port import Argument
from src.storage.metrics.series.series_dictionary import SeriesDictionary


def write_arguments(
    batch: Sequence[PointColumns], dictionaries: Mapping[str, SeriesDictionary]
) -> list[Argument]:
    """Return the arguments that store the points of `batch`.

    Args:
        batch: The points of each type, at least one.
        dictionaries: The known series dictionaries by type. New series get the next free numbers.
    """
    heads: list[list[Argument]] = []
    numbers: list[Sequence[int] | None] = []
    for columns in batch:
        version, new, found = "", dict[str, int](), None
        if columns.labels is not None:
            dictionary = dictionaries.get(columns.type) or SeriesDictionary()
            version = dictionary.version
            new = dictionary.numbers_for_new(columns.labels)
            known = dictionary.numbers
            found = [known[text] if text in known else new[text] for text in columns.labels]
        latest_us = int(columns.timestamps_us.max())
        head: list[Argument] = [columns.type, latest_us, version, len(new)]
        for text, number in new.items():
            head += (number, text)
        heads.append(head)
        numbers.append(found)
    arguments: list[Argument] = []
    for head, (minutes, entries) in zip(heads, _folds(batch, numbers), strict=True):
        arguments += (*head, entries, len(minutes))
        for part in minutes:
            arguments += part
    return arguments


def _folds(batch: Sequence[PointColumns], numbers: Sequence[Sequence[int] | None]) -> list[TypeFold]:
    """Return the points of each type by minute. `numbers` has the series of each point, if it has one."""
    pairs = zip(batch, numbers, strict=True)
    if sum(len(columns.values) for columns in batch) > FEW:
        return fold(
            [
                (
                    columns.timestamps_us,
                    columns.values,
                    np.zeros(len(columns.values), np.uint16) if some is None else np.array(some, np.uint16),
                )
                for columns, some in pairs
            ]
        )
    return [_fold_few(columns, some) for columns, some in pairs]


def _fold_few(columns: PointColumns, numbers: Sequence[int] | None) -> TypeFold:
    _, _, timestamps, values, _ = columns
    few = numbers or [0] * len(values)
    minutes = fold_few(list(zip(timestamps.tolist(), values.tolist(), few, strict=True)))
    return TypeFold(minutes, b"".join(part.entries for part in minutes) if len(minutes) > 1 else b"")
