"""The index of the API over the wire."""

from pydantic import BaseModel, Field


class IndexOut(BaseModel):
    """What the service is, and where to go from here."""

    name: str = Field(examples=["Resilient Analytics API"])
    version: str = Field(examples=["0.1.0"])
    dashboard: str = Field(description="The operator's page", examples=["/dashboard"])
    docs: str = Field(description="The documentation, to try out", examples=["/docs"])
    redoc: str = Field(description="The documentation, to read", examples=["/redoc"])
    openapi: str = Field(description="The OpenAPI document", examples=["/openapi.json"])
    health: str = Field(examples=["/health"])
    metrics: str = Field(description="The service's instruments, for Prometheus", examples=["/metrics"])
