"""The model of the API's index."""

from pydantic import BaseModel, Field


class IndexOut(BaseModel):
    """The name of the service, and the paths of its entry points."""

    name: str = Field(examples=["Resilient Analytics API"])
    version: str = Field(examples=["0.1.0"])
    dashboard: str = Field(description="The operator's page", examples=["/dashboard"])
    docs: str = Field(description="The interactive documentation", examples=["/docs"])
    redoc: str = Field(description="The reference documentation", examples=["/redoc"])
    openapi: str = Field(description="The OpenAPI document", examples=["/openapi.json"])
    health: str = Field(examples=["/health"])
    metrics: str = Field(description="The service's instruments, for Prometheus", examples=["/metrics"])
