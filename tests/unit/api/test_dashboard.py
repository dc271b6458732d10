"""The files of the operator's page: complete, compressed, cached by the browser, and without other hosts."""

import gzip
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from src.api.responses.negotiation import is_not_modified
from src.api.routes import dashboard

FOLDER = Path("src/dashboard")
SOURCES = sorted(path for path in FOLDER.iterdir() if path.suffix in {".html", ".css", ".js"})


@pytest.fixture
async def client():
    app = FastAPI()
    app.include_router(dashboard.router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_the_page_is_sent_with_its_policy(client):
    answer = await client.get("/dashboard")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (FOLDER / "index.html").read_text(encoding="utf-8")
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} < set(
        policy
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


async def test_every_file_has_its_media_type(client):
    media_types = {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }
    for path in FOLDER.iterdir():
        answer = await client.get(f"/dashboard/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"].split(";")[0] == media_types[path.suffix]


async def test_chart_js_comes_from_its_package_with_its_licence(client):
    beginning = (await client.get("/dashboard/Chart.bundle.js")).text[:200]
    assert "Chart.js" in beginning
    assert "MIT License" in beginning


async def test_a_file_is_compressed_if_accepted_and_revalidated_by_its_tag(client):
    plain = await client.get("/dashboard/Chart.bundle.js", headers={"Accept-Encoding": "identity"})
    async with client.stream(
        "GET", "/dashboard/Chart.bundle.js", headers={"Accept-Encoding": "br, gzip"}
    ) as packed:
        body = b"".join([chunk async for chunk in packed.aiter_raw()])
    assert gzip.decompress(body) == plain.content
    assert len(body) < len(plain.content) / 4
    assert packed.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    again = await client.get(
        "/dashboard/Chart.bundle.js",
        headers={"If-None-Match": plain.headers["etag"], "Accept-Encoding": "identity"},
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("refusal", ["gzip;q=0", "identity", "*;q=0, identity"])
async def test_a_file_is_not_compressed_for_a_client_that_refuses_gzip(client, refusal):
    """In the past `gzip;q=0` was answered with gzip."""
    answer = await client.get("/dashboard/Chart.bundle.js", headers={"Accept-Encoding": refusal})
    assert "content-encoding" not in answer.headers


async def test_every_line_of_if_none_match_is_read(client):
    """In the past only the first line was read."""
    tag = (await client.get("/dashboard", headers={"Accept-Encoding": "identity"})).headers["etag"]
    headers = [("Accept-Encoding", "identity"), ("If-None-Match", '"other"'), ("If-None-Match", tag)]
    assert (await client.get("/dashboard", headers=headers)).status_code == 304


async def test_every_line_of_accept_encoding_is_read(client):
    headers = [("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")]
    assert (await client.get("/dashboard", headers=headers)).headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    "name", ["nothing.js", "../routes/dashboard.py", "..%2froutes%2fdashboard.py", "__pycache__", "%00"]
)
async def test_an_unknown_file_is_a_404(client, name):
    assert (await client.get(f"/dashboard/{name}")).status_code == 404


async def test_a_trailing_slash_is_redirected_below_any_path(client):
    answer = await client.get("/dashboard/", follow_redirects=False, headers={"Host": "elsewhere.example"})
    assert (answer.status_code, answer.headers["location"]) == (308, "../dashboard")


def test_the_files_that_the_page_names_exist():
    served = {path.name for path in FOLDER.iterdir()} | {"Chart.bundle.js"}
    named = set(
        re.findall(r'(?:href|src)="dashboard/([^"]+)"', (FOLDER / "index.html").read_text(encoding="utf-8"))
    )
    for path in FOLDER.glob("*.js"):
        named |= set(re.findall(r'(?:from|import) "\./([^"]+)"', path.read_text(encoding="utf-8")))
    assert named == served - {"index.html", "logs.css"}  # the followed log contains that event


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_page_has_no_inline_code_and_escapes_data(path):
    text = path.read_text(encoding="utf-8")
    inline = r"\sstyle=|\son[a-z]+=\"|<style|<script>"
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
    assert re.findall(f"{inline}|{markup}", text) == []
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    ("if_none_match", "has"),
    [(None, False), ('"a"', True), ('"b", W/"a"', True), ("*", True), ('"b"', False), ("", False)],
)
def test_is_not_modified_compares_entity_tags(if_none_match, has):
    assert is_not_modified(if_none_match, '"a"') is has
