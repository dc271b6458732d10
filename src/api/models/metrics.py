"""The models of measurements, and of the queries that read them."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from src.analytics.points import Point, labels_text, parse_timestamp
from src.services.metrics.labels import LabelFilters, LabelQuery
from src.services.metrics.series import DEFAULT_STEP_SECONDS
from src.services.metrics.summary import Period

TYPE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$"


MetricType = Annotated[
    str, Field(pattern=TYPE_PATTERN, description="Name of a metric type", examples=["cpu_usage"])
]


def _read_timestamp(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError("timestamp", "must be an RFC 3339 string, such as 2026-01-31T12:00:00Z")
    try:
        return parse_timestamp(value)
    except ValueError as error:
        raise PydanticCustomError("timestamp", "{reason}", {"reason": str(error)}) from None


TimestampMicroseconds = Annotated[
    int,
    BeforeValidator(_read_timestamp),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339; UTC if there is no offset; microseconds are kept",
        }
    ),
]


LABEL_NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
MAX_LABELS = 16
MAX_LABEL_VALUE_CHARACTERS = 128

_IS_LABEL_NAME = re.compile(LABEL_NAME_PATTERN)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def label_fault(labels: Mapping[str, str]) -> str | None:
    """Return the first fault of `labels`; None if they are valid."""
    if len(labels) > MAX_LABELS:
        return f"there may be at most {MAX_LABELS} labels"
    for name, value in labels.items():
        if not _IS_LABEL_NAME.fullmatch(name):
            return f"the name {name[:64]!r} does not match {LABEL_NAME_PATTERN}"
        if not 1 <= len(value) <= MAX_LABEL_VALUE_CHARACTERS:
            return f"the value of {name} must have 1 to {MAX_LABEL_VALUE_CHARACTERS} characters"
        if _CONTROL_CHARACTER.search(value):
            return f"the value of {name} must not contain control characters"
    return None


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    if fault := label_fault(labels):
        raise PydanticCustomError("labels", "{fault}", {"fault": fault})
    return labels


Labels = Annotated[
    dict[str, str],
    AfterValidator(_check_labels),
    Field(
        description="Each set of labels identifies one series of the type",
        examples=[{"host": "web-1"}],
        max_length=MAX_LABELS,
    ),
]


class MetricIn(BaseModel):
    """One measurement in a request."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"timestamp": "2026-01-31T12:00:00Z", "value": 42.5, "type": "cpu_usage"},
                {
                    "timestamp": "2026-01-31T12:00:01.5Z",
                    "value": 512,
                    "type": "memory_mb",
                    "labels": {"host": "web-1"},
                },
            ]
        },
    )

    timestamp: TimestampMicroseconds
    value: Annotated[float, Field(allow_inf_nan=False, description="A finite number")]
    type: MetricType
    labels: Labels = Field(default_factory=dict)

    def point(self) -> Point:
        """Return the measurement as a point."""
        return Point(self.type, self.timestamp, self.value, labels_text(self.labels))


METRIC_IN = TypeAdapter(MetricIn)


class MetricReceived(BaseModel):
    """The answer to one measurement."""

    message: Literal["Metric received"] = "Metric received"
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    type: str = Field(examples=["cpu_usage"])


class BatchError(BaseModel):
    """An error of one point of a batch."""

    index: int = Field(description="The index of the point in the batch, from 0", examples=[3])
    field: str = Field(examples=["value"])
    message: str = Field(examples=["Input should be a finite number"])


class BatchReceived(BaseModel):
    """The answer to a batch."""

    accepted: int = Field(examples=[999])
    rejected: int = Field(examples=[1])
    errors: list[BatchError] = Field(description="The first 100 errors")


class MetricOut(BaseModel):
    """One stored measurement."""

    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    value: float = Field(examples=[42.5])
    type: str = Field(examples=["cpu_usage"])
    labels: dict[str, str] | None = Field(None, description="Left out if the measurement has no labels")


class MetricTypeOut(BaseModel):
    """One metric type."""

    type: str = Field(examples=["cpu_usage"])
    count: int = Field(examples=[120])
    latest_timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    latest_value: float = Field(examples=[42.5])
    series: int = Field(
        description="The number of series: of sets of labels, and 1 for a type without labels", examples=[3]
    )


class LabelledQuery(BaseModel):
    """The series to read."""

    model_config = ConfigDict(frozen=True)

    label: tuple[Annotated[str, Field(pattern=f"^{LABEL_NAME_PATTERN}:.{{1,128}}$")], ...] = Field(
        (),
        max_length=64,
        description="`name:value`, repeatable. A series must have every name, and one of the name's values",
        examples=[["host:web-1"]],
    )

    def filters(self) -> LabelFilters:
        """Return the accepted values of each label name."""
        filters: dict[str, frozenset[str]] = {}
        for text in self.label:
            name, _, value = text.partition(":")
            filters[name] = filters.get(name, frozenset()) | {value}
        return filters


class GroupedQuery(LabelledQuery):
    """The series to read, and their grouping."""

    group_by: str | None = Field(
        None,
        pattern=rf"^{LABEL_NAME_PATTERN}(,{LABEL_NAME_PATTERN}){{0,2}}$",
        description="Up to three label names, separated by commas. Each set of their values is a group",
        examples=["host"],
    )

    @cached_property
    def labels(self) -> LabelQuery:
        """The filters and the grouping."""
        return LabelQuery(self.filters(), tuple(self.group_by.split(",")) if self.group_by else ())


class SummaryQuery(GroupedQuery):
    """The summary to read."""

    type: MetricType
    period: Period = Field(
        "all", description="all: all measurements; daily: the last 24 h; hourly: the last 60 min"
    )


class ListQuery(LabelledQuery):
    """The measurements to list."""

    type: MetricType | None = Field(None, description="The type to list; all types by default")
    limit: int = Field(100, ge=1, le=1000, description="The largest number of measurements")
    cursor: str | None = Field(None, max_length=512, description="A cursor from the Link header of a page")


class SeriesQuery(GroupedQuery):
    """The series to read, and its steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: MetricType
    from_: TimestampMicroseconds | None = Field(
        None,
        alias="from",
        description="RFC 3339. The beginning, inclusive; by default an hour before the end",
        examples=["2026-01-31T11:00:00Z"],
    )
    to: TimestampMicroseconds | None = Field(
        None,
        description="RFC 3339. The end, exclusive; by default the end of the current step",
        examples=["2026-01-31T12:00:00Z"],
    )
    step: int = Field(DEFAULT_STEP_SECONDS, ge=1, description="Length of a step in seconds")


class ExportQuery(LabelledQuery):
    """The measurements to export."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: MetricType
    from_: TimestampMicroseconds | None = Field(
        None,
        alias="from",
        description="RFC 3339. The first instant; without it, the beginning",
        examples=["2026-01-31T00:00:00Z"],
    )
    to: TimestampMicroseconds | None = Field(
        None,
        description="RFC 3339. The instant after the last; without it, the end",
        examples=["2026-02-01T00:00:00Z"],
    )


class LabelsQuery(BaseModel):
    """The type whose labels are listed."""

    model_config = ConfigDict(frozen=True)

    type: MetricType


class LabelValueOut(BaseModel):
    """One value of a label."""

    value: str = Field(examples=["web-1"])
    count: int = Field(description="The number of measurements with this value", examples=[120])


class LabelOut(BaseModel):
    """One label name."""

    name: str = Field(examples=["host"])
    values: list[LabelValueOut]
