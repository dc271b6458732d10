"""Deletion and retention over the wire."""

from pydantic import BaseModel, ConfigDict, Field

from src.api.models.metrics import LabelledQuery, MetricType, TimestampMicroseconds

_LONGEST_SECONDS = 100 * 366 * 86_400
_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}\*?|\*)$"


class DeletionQuery(LabelledQuery):
    """The measurements to delete."""

    # A misspelt `before` must not delete everything.
    model_config = ConfigDict(extra="forbid", frozen=True)

    type: MetricType
    before: TimestampMicroseconds | None = Field(
        None,
        description="RFC 3339. Only measurements before this instant; without it, those of all times",
        examples=["2026-01-31T12:00:00Z"],
    )


class Deleted(BaseModel):
    """The result of a deletion."""

    deleted: int = Field(description="0 if there was nothing to delete", examples=[120])


class RetentionRule(BaseModel):
    """A retention rule: the time for which measurements of matching types are kept."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"examples": [{"pattern": "cpu*", "seconds": 2_592_000}]},
    )

    pattern: str = Field(
        pattern=_PATTERN,
        description="A type, or the beginning of a name and an asterisk. The longest that matches counts",
        examples=["cpu*"],
    )
    seconds: int = Field(
        ge=0,
        le=_LONGEST_SECONDS,
        description="Seconds for which measurements are kept; 0 is no limit",
        examples=[2_592_000],
    )


class RetentionQuery(BaseModel):
    """The retention rule to remove."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str = Field(pattern=_PATTERN, description="As it was set", examples=["cpu*"])
