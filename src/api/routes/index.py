"""The root path: a redirect to the dashboard for browsers, an index for other clients."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from src.api.header import header
from src.api.models.index import IndexOut
from src.api.openapi import headers
from src.api.responses.negotiation import prefers_html

router = APIRouter(tags=["index"])

_VARY = {"Vary": "Accept"}


@router.get(
    "/",
    response_model=IndexOut,
    summary="Index of the API",
    responses={
        200: headers("Vary"),
        307: {"description": "Redirect of a browser to the dashboard", **headers("Location", "Vary")},
    },
)
async def index(request: Request) -> Response:
    """Redirect a client that prefers `text/html` to the dashboard; return this index to other clients."""
    if prefers_html(header(request.scope, b"accept")):
        return RedirectResponse("dashboard", headers=_VARY)  # a relative address works with any path and Host
    root = request.scope.get("root_path", "")
    answer = IndexOut(
        name=request.app.title,
        version=request.app.version,
        dashboard=f"{root}/dashboard",
        docs=f"{root}/docs",
        redoc=f"{root}/redoc",
        openapi=f"{root}/openapi.json",
        health=f"{root}/health",
        metrics=f"{root}/metrics",
    )
    return JSONResponse(answer.model_dump(), headers=_VARY)
