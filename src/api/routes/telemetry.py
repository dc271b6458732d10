"""The instruments of the service, for Prometheus."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from src.api.dependencies import state

router = APIRouter(tags=["telemetry"])


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def exposition(request: Request) -> Response:
    """Return the metrics of all workers in Prometheus' text format."""
    content, content_type = await state(request)["exposition"]()
    return Response(content, headers={"Content-Type": content_type})
