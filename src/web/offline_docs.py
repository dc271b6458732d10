"""The pages `/docs` and `/redoc`, which load all files from the service itself.

Swagger UI and ReDoc come from the installed `fastapi-offline` package. ReDoc's script loads a logo from a
CDN, so this module replaces the address of the logo. The pages' policy forbids requests to other hosts.
"""

from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

PACKAGE = "fastapi_offline"
REDOC_SCRIPT = "redoc.standalone.js"
REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_NO_IMAGE = b"data:,"  # ReDoc shows no logo if the image does not load

_POLICY = "default-src 'self' 'unsafe-inline' data: blob:; base-uri 'none'; frame-ancestors 'none'"


def add_offline_docs(app: FastAPI) -> None:
    """Add the two pages and their files to an app, which has `docs_url=None` and `redoc_url=None`."""

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return _page(
            get_swagger_ui_html(
                openapi_url=f"{root}/openapi.json",
                title=f"{app.title} - Swagger UI",
                swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
                swagger_css_url=f"{root}/docs/swagger-ui.css",
                swagger_favicon_url=f"{root}/docs/favicon.png",
            )
        )

    async def redoc(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return _page(
            get_redoc_html(
                openapi_url=f"{root}/openapi.json",
                title=f"{app.title} - ReDoc",
                redoc_js_url=f"{root}/docs/{REDOC_SCRIPT}",
                redoc_favicon_url=f"{root}/docs/favicon.png",
                with_google_fonts=False,
            )
        )

    async def redoc_script(_request: Request) -> Response:
        headers = {"Cache-Control": "max-age=3600"}
        return Response(_redoc_script(), headers=headers, media_type="text/javascript")

    app.add_route("/docs", docs, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
    app.add_route(f"/docs/{REDOC_SCRIPT}", redoc_script, include_in_schema=False)
    app.mount("/docs", StaticFiles(packages=[(PACKAGE, "static")]))


@cache
def _redoc_script() -> bytes:
    return (files(PACKAGE) / "static" / REDOC_SCRIPT).read_bytes().replace(REDOC_LOGO, _NO_IMAGE)


def _page(page: HTMLResponse) -> Response:
    page.headers["Content-Security-Policy"] = _POLICY
    return page
