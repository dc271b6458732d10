"""Problem documents over the wire (RFC 9457)."""

from typing import Literal

from pydantic import BaseModel, Field


class ProblemField(BaseModel):
    """What is wrong with one field."""

    index: int | None = Field(None, description="Its point's place in a batch, from 0")
    field: str = Field(examples=["value"])
    message: str = Field(examples=["Input should be a valid number"])


class ProblemOut(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    code: str = Field(description="The error's fixed name")
    message: str = Field(description="The same as detail")
    timestamp: str = Field(examples=["2026-01-31T12:00:00Z"])
    request_id: str
    accepted: Literal[0] | None = Field(None, description="Of a batch of which nothing was stored")
    rejected: int | None = Field(None, description="Of a batch: how many of its points are wrong")
    errors: list[ProblemField] | None = Field(None, description="Field by field, with a 422")
