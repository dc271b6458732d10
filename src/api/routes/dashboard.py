"""The files of the operator's page and Chart.js, read and compressed once, then served from memory.

Chart.js comes from the installed `chartkick` package, so the page loads nothing from another host. The page
addresses its files and the API relatively, so it works below any path at which a proxy serves it.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from src.api.header import header
from src.api.responses.negotiation import accepts_gzip, is_not_modified

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"  # strings cannot become markup or code
)

PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the browser revalidates each time, and gets a 304 unless the file changed
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page.

    Attributes:
        media_type: The Content-Type of the file.
        encodings: For each content encoding, the encoded bytes and their entity tag.
    """

    media_type: str
    encodings: dict[str, tuple[bytes, str]]


@cache
def _files() -> dict[str, _File]:
    """Return every file of the page by its name."""
    entries: list[Traversable] = [
        *files("src").joinpath("dashboard").iterdir(),
        files("chartkick").joinpath("django/static/chartkick/Chart.bundle.js"),
    ]
    return {
        entry.name: _File(_MEDIA_TYPES[suffix], _encodings(entry.read_bytes()))
        for entry in entries
        if (suffix := PurePath(entry.name).suffix) in _MEDIA_TYPES
    }


def _encodings(body: bytes) -> dict[str, tuple[bytes, str]]:
    digest = hashlib.blake2b(body, digest_size=12).hexdigest()
    return {
        "identity": (body, f'"{digest}"'),
        "gzip": (gzip.compress(body, compresslevel=6, mtime=0), f'"{digest}-gzip"'),
    }


# FastAPI runs these plain functions in a thread, since the first request reads and compresses the files.


@router.get("/dashboard")
def page(request: Request) -> Response:
    """Send the page."""
    return _answer(request, "index.html")


@router.get("/dashboard/")
def page_with_a_slash() -> Response:
    """Redirect to the page. The address is relative, so it does not depend on the Host header."""
    return RedirectResponse("../dashboard", status_code=308)


@router.get("/dashboard/{name}")
def file(request: Request, name: str) -> Response:
    """Send a file of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    found = _files().get(name)
    if found is None:
        raise HTTPException(404)
    encoding = "gzip" if accepts_gzip(header(request.scope, b"accept-encoding")) else "identity"
    body, tag = found.encodings[encoding]
    headers = {**PAGE_HEADERS, "ETag": tag}
    if is_not_modified(header(request.scope, b"if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    if encoding != "identity":
        headers["Content-Encoding"] = encoding
    return Response(body, headers=headers, media_type=found.media_type)
