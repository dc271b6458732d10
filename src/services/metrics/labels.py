"""Queries by labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import orjson

from src.analytics.aggregate import Aggregate

LabelFilters: TypeAlias = Mapping[str, frozenset[str]]
"""The accepted values of each label name. A series without the label does not match."""

MAX_GROUPS = 1_000


def matches(filters: LabelFilters, text: str) -> bool:
    """Return whether a series matches `filters`.

    Args:
        filters: The accepted values.
        text: The labels of the series, in the form of `labels_text`.
    """
    labels = orjson.loads(text) if text else {}
    return all(labels.get(name) in values for name, values in filters.items())


class LabelQuery(NamedTuple):
    """The series to summarize, and their grouping.

    Attributes:
        filters: The accepted values of each label name.
        group_by: The names of the labels by which the series are grouped. If empty, there is one group.
    """

    filters: LabelFilters
    group_by: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series with `labels` is summarized."""
        return all(labels.get(name) in values for name, values in self.filters.items())

    def group_values(self, labels: Mapping[str, str]) -> tuple[str | None, ...]:
        """Return the values of `group_by` in `labels`; None for each name that `labels` does not have."""
        return tuple(labels.get(name) for name in self.group_by)


ALL_SERIES = LabelQuery({})
"""All series of a type, together."""


class Group(NamedTuple):
    """The summary of one group of series.

    Attributes:
        labels: The labels of the group. A label that the group's series do not have is left out.
        aggregate: The summary of the group's points.
    """

    labels: Mapping[str, str]
    aggregate: Aggregate


class Groups(NamedTuple):
    """The summaries of all groups.

    Attributes:
        groups: At most `MAX_GROUPS` groups, ordered by label values.
        is_truncated: Whether there are more groups.
    """

    groups: Sequence[Group]
    is_truncated: bool = False
