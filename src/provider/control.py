"""`/faults`, `/health`, `/stats`: the endpoints without fault injection."""

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError

from src.provider.bodies import MAX_BODY_BYTES, BoundedBody
from src.provider.faults import Faults, FaultSchedule
from src.provider.injection import Stats
from src.provider.problems import problem_responses

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Faults"},
                "examples": {
                    "a rate": {"value": {"failure_rate": 0.3}},
                    "a pattern": {"value": {"pattern": "SSFFF"}},
                    "hanging calls": {"value": {"failure_rate": 1, "kind": "hang"}},
                    "no faults": {"value": {"failure_rate": 0, "latency_ms": 0, "pattern": None}},
                },
            }
        },
    }
}

_STATS = {
    "calls": 5,
    "failed": 3,
    "refused": 0,
    "by_endpoint": {"kv": 2, "get": 3, "delay": 0, "status": 0, "score": 0, "other": 0},
}


class Health(BaseModel):
    """The health of the provider."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "healthy"}]})

    status: Literal["healthy"] = "healthy"


def control_router(schedule: FaultSchedule, stats: Stats) -> APIRouter:
    """Return the endpoints that read and change `schedule`, and read `stats`."""
    router = APIRouter(tags=["control"])

    @router.get("/faults", summary="Read the faults")
    async def show_faults() -> Faults:
        """Return the current faults."""
        return schedule.faults

    @router.put(
        "/faults",
        summary="Change the faults",
        openapi_extra=_BODY,
        responses=problem_responses(
            {
                400: "the body is not JSON: expected value at line 1 column 1",
                413: f"the body is larger than {MAX_BODY_BYTES} bytes",
                422: "failure_rate: Input should be less than or equal to 1",
            }
        ),
    )
    async def change_faults(body: BoundedBody) -> Faults:
        """Change the faults in the body; the others stay unchanged. A new pattern starts at its beginning."""
        try:
            schedule.change(Faults.model_validate_json(body))
        except ValidationError as error:
            errors = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
            raise RequestValidationError(errors) from error
        return schedule.faults

    @router.get("/health", summary="Health of the provider")
    async def health() -> Health:
        """Answer that the provider serves requests. The answer is always the same."""
        return Health()

    @router.get(
        "/stats",
        summary="Count the calls",
        responses={200: {"content": {"application/json": {"example": _STATS}}}},
    )
    async def show_stats() -> Stats:
        """Return the numbers of calls since the start.

        `failed` counts calls that a fault affected or that were answered with a 5xx; `refused` counts calls
        that were answered with a 429.
        """
        return stats

    return router
