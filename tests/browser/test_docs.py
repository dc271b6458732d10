"""The documentation in a real browser: both pages work, and load nothing from other hosts."""

import subprocess
import sys

import pytest

pytest.importorskip("playwright", reason="there is no playwright here")

from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import until_healthy
from tests.support.server import environment, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Provider:
    """`python -m src.provider`."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "src.provider", "--port", str(port)]
        self.process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=15)


@pytest.fixture
def provider():
    running = Provider()
    until_healthy(running)
    yield running
    running.stop()


either = pytest.mark.parametrize("app", ["server", "provider"], ids=["API", "provider"])
SHOWN = {"server": "Simulated failure rate", "provider": "List the keys"}


@either
def test_swagger_ui_shows_the_operations_and_can_send_one(context: BrowserContext, app, request, record):
    page = context.new_page()
    page.goto(f"{request.getfixturevalue(app).url}/docs")
    operation = page.locator(".opblock", has_text="/health").first
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table .response .response-col_status").first).to_have_text(
        "200"
    )
    assert record.http_errors == []


@either
def test_redoc_shows_the_operations(context: BrowserContext, app, request, record):
    """In the past, the logo was loaded from cdn.redoc.ly."""
    page = context.new_page()
    page.goto(f"{request.getfixturevalue(app).url}/redoc")
    expect(page.get_by_role("heading", name=SHOWN[app]).first).to_be_visible()
    page.get_by_placeholder("Search...").fill("health")
    expect(page.locator("[data-role='search:results'] li").first).to_be_visible()
    expect(page.get_by_alt_text("redocly logo")).to_have_count(0)
    assert record.http_errors == []
