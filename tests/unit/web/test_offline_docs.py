"""The documentation's pages, which load nothing from another host."""

import re
from importlib.resources import files

import httpx
import pytest
from fastapi import FastAPI

from src.web.offline_docs import PACKAGE, REDOC_LOGO, REDOC_SCRIPT, add_offline_docs


@pytest.fixture
def app():
    app = FastAPI(docs_url=None, redoc_url=None)
    add_offline_docs(app)
    return app


@pytest.fixture
async def client(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        yield client


@pytest.mark.parametrize("root_path", ["", "/below"])
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_files_of_a_page_exist_and_other_hosts_are_forbidden(app, root_path, page):
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        await get_page(client, root_path, page)


async def get_page(client, root_path, page):
    answer = await client.get(root_path + page)
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'self' 'unsafe-inline' data: blob:"
    named = re.findall(r"""(?:src|href|url|spec-url)(?:=|: )["']([^"']+)["']""", answer.text)
    assert f"{root_path}/openapi.json" in named
    for address in named:
        assert address.startswith(f"{root_path}/"), address
        assert (await client.get(address)).status_code == 200, address


async def test_the_logo_of_redoc_is_not_loaded_from_another_host(client):
    """In the past, /redoc requested it from cdn.redoc.ly."""
    original = (files(PACKAGE) / "static" / REDOC_SCRIPT).read_bytes()
    assert REDOC_LOGO in original, "the package has changed: check the files that its script loads"
    script = (await client.get(f"/docs/{REDOC_SCRIPT}")).content
    assert REDOC_LOGO not in script
    assert len(original) - len(script) == len(REDOC_LOGO) - len(b"data:,")


async def test_no_script_or_style_loads_from_another_host(client):
    loading = re.compile(rb"""(?:\bsrc:|url\(|@import|importScripts\(|fetch\()\s*["']?https?://[^"')]+""")
    for name in (REDOC_SCRIPT, "swagger-ui-bundle.js", "swagger-ui.css"):
        assert loading.findall((await client.get(f"/docs/{name}")).content) == []
