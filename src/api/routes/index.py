"""The first page: the dashboard for browsers, an index for programs."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from src.api.header import header
from src.api.models.index import IndexOut
from src.api.negotiation import prefers_html
from src.api.openapi import headers

router = APIRouter(tags=["index"])

_VARY = {"Vary": "Accept"}


@router.get(
    "/",
    response_model=IndexOut,
    summary="Where to go from here",
    responses={
        200: headers("Vary"),
        307: {"description": "A browser is sent to the dashboard", **headers("Location", "Vary")},
    },
)
async def index(request: Request) -> Response:
    """Send a browser, which prefers `text/html`, to the dashboard; give other clients this index."""
    if prefers_html(header(request.scope, b"accept")):
        return RedirectResponse("dashboard", headers=_VARY)  # relative: it holds below any path and Host
    root = request.scope.get("root_path", "")
    found = IndexOut(
        name=request.app.title,
        version=request.app.version,
        dashboard=f"{root}/dashboard",
        docs=f"{root}/docs",
        redoc=f"{root}/redoc",
        openapi=f"{root}/openapi.json",
        health=f"{root}/health",
        metrics=f"{root}/metrics",
    )
    return JSONResponse(found.model_dump(), headers=_VARY)
