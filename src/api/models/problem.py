"""The models of problem documents (RFC 9457)."""

from typing import Literal

from pydantic import BaseModel, Field


class ProblemField(BaseModel):
    """The error of one field."""

    index: int | None = Field(None, description="In a batch: the index of the point, from 0")
    field: str = Field(examples=["value"])
    message: str = Field(examples=["Input should be a valid number"])


class ProblemOut(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    code: str = Field(description="The fixed name of the error")
    message: str = Field(description="The same text as detail")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    request_id: str
    accepted: Literal[0] | None = Field(None, description="For a batch: no point was stored")
    rejected: int | None = Field(None, description="For a batch: the number of invalid points")
    errors: list[ProblemField] | None = Field(None, description="For a 422: the errors of the fields")
