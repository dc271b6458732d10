"""The models of summaries and series, for all series of a type together and for groups by labels."""

from typing import Literal

from pydantic import BaseModel, Field

from src.services.metrics.summary import Period

GroupLabels = dict[str, str]
"""The labels of a group. A label that the group's series do not have is left out."""


class _SummaryKey(BaseModel):
    type: str = Field(examples=["cpu_usage"])
    period: Period


class _Figures(BaseModel):
    count: int = Field(examples=[120])
    average_value: float | None = Field(
        description="Null also if the sum exceeds the range of a double", examples=[40.1]
    )
    min_value: float | None = Field(examples=[12.0])
    max_value: float | None = Field(examples=[97.5])
    latest_value: float | None = Field(
        description="The value with the latest timestamp; of several, the one that arrived last",
        examples=[42.5],
    )
    sum: float | None = Field(examples=[4812.0])
    p50: float | None = Field(description="Relative error at most 1 %", examples=[39.9])
    p95: float | None = Field(examples=[88.0])
    p99: float | None = Field(examples=[95.2])
    latest_timestamp: str | None = Field(examples=["2026-01-31T12:00:00Z"])


class _SummaryContext(BaseModel):
    reference: object | None = Field(
        description="The external service's reference data of this type; null if there are none",
        examples=[{"unit": "percent", "description": "Share of CPU time in use"}],
    )
    degraded: bool = Field(
        description="true: no current summary was available in time, and this is the last good one"
    )
    generated_at: str = Field(examples=["2026-01-31T12:00:05Z"])


# pydantic orders the members of several bases from the last base to the first.


class Summary(_SummaryContext, _Figures, _SummaryKey):
    """The summary of one metric type over one period. Without data, count is 0 and the figures are null."""


class _Group(BaseModel):
    labels: GroupLabels = Field(examples=[{"host": "web-1"}])


class SummaryGroup(_Figures, _Group):
    """The summary of the series with these labels."""


class _GroupedKey(_SummaryKey):
    group_by: list[str] = Field(examples=[["host"]])


class GroupedSummary(_SummaryContext, _GroupedKey):
    """The summaries of one metric type over one period, grouped by the labels in `group_by`."""

    groups: list[SummaryGroup] = Field(description="At most 1,000 groups, ordered by label values")
    truncated: Literal[True] | None = Field(None, description="Present only if there are more groups")


class SeriesStep(BaseModel):
    """The summary of the points of one step. Without points, count is 0 and the figures are null."""

    time: str = Field(description="The beginning of the step", examples=["2026-01-31T12:00:00Z"])
    count: int = Field(examples=[60])
    average: float | None = Field(
        description="Null also if the sum exceeds the range of a double", examples=[40.1]
    )
    min: float | None = Field(examples=[12.0])
    max: float | None = Field(examples=[97.5])
    p50: float | None = Field(description="Relative error at most 1 %", examples=[39.9])
    p95: float | None = Field(examples=[88.0])
    p99: float | None = Field(examples=[95.2])


class SeriesGroup(_Group):
    """The steps of the series with these labels."""

    steps: list[SeriesStep]


class GroupedSeries(BaseModel):
    """A metric type over time, grouped by the labels in `group_by`."""

    type: str = Field(examples=["cpu_usage"])
    step: int = Field(description="Length of a step in seconds", examples=[60])
    group_by: list[str] = Field(examples=[["host"]])
    groups: list[SeriesGroup] = Field(description="At most 1,000 groups, ordered by label values")
    truncated: Literal[True] | None = Field(None, description="Present only if there are more groups")
