"""Queries by labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import orjson

from src.analytics.aggregate import Aggregate

LabelFilters: TypeAlias = Mapping[str, frozenset[str]]
"""For each label name the values of which one must match. A series without the name does not match."""

MAX_GROUPS = 1_000


def matches(filters: LabelFilters, text: str) -> bool:
    """Return whether a series matches `filters`, whose labels are given as `labels_text` writes them."""
    labels = orjson.loads(text) if text else {}
    return all(labels.get(name) in values for name, values in filters.items())


class LabelQuery(NamedTuple):
    """Which series are summarized, and how they are grouped.

    Attributes:
        filters: What a series must match.
        group_by: Names by whose values the series are grouped; none: all series together.
    """

    filters: LabelFilters
    group_by: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series with `labels` is summarized."""
        return all(labels.get(name) in values for name, values in self.filters.items())

    def group_of(self, labels: Mapping[str, str]) -> tuple[str | None, ...]:
        """Return the values by which a series with `labels` is grouped; None for a name it does not have."""
        return tuple(labels.get(name) for name in self.group_by)


ALL_SERIES = LabelQuery({})
"""All series of a type, together."""


class Group(NamedTuple):
    """The summary of one group of series.

    Attributes:
        labels: The values by which it is grouped; names that its series do not have are left out.
        aggregate: The summary of its points.
    """

    labels: Mapping[str, str]
    aggregate: Aggregate


class Groups(NamedTuple):
    """The summaries of all groups.

    Attributes:
        groups: In order of their label values, `MAX_GROUPS` at most.
        is_truncated: Whether there are more.
    """

    groups: Sequence[Group]
    is_truncated: bool = False
