"""The API as a process, and a browser whose page may log no error and send no request to other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.api import PLENTY
from tests.support.server import Server

if TYPE_CHECKING:  # the fixtures import it: where there is no playwright, the tests are skipped before
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.browser.browser import PageRecord

TIMEOUT_MS = 20_000


@pytest.fixture(
    scope="package"
)  # while it runs, its event loop runs in this thread, and other tests could not run a loop
def browser() -> Iterator[Browser]:
    from tests.browser.browser import CHROMIUM, running_chromium

    if CHROMIUM is None:
        pytest.skip("no chromium on PATH")
    with running_chromium() as running:
        yield running


@pytest.fixture(scope="package")  # not longer, since its workers report to the Redis of all tests
def server(shared_redis, tmp_path_factory) -> Iterator[Server]:
    """Run two workers without effective quotas, with a provider that does not fail by itself."""
    plenty = {name.upper(): str(limit) for name, limit in PLENTY.items()}
    running = Server(shared_redis.url, tmp_path_factory.mktemp("server"), **plenty)
    until_healthy(running)
    yield running
    running.stop()


@pytest.fixture
def start_server(redis_server, tmp_path):
    """Return a function that starts another server with given settings, and a Redis if required."""
    servers = []

    def start(redis=redis_server, **settings: str) -> Server:
        servers.append(Server(redis.url, tmp_path, **settings))
        until_healthy(servers[-1])
        return servers[-1]

    yield start
    for running in servers:
        running.stop()


def until_healthy(running: Server) -> None:
    transport = httpx.HTTPTransport(retries=8)  # 0, 0.5, 1, 2, 4, … s apart, while no server is listening
    with httpx.Client(transport=transport, timeout=20) as client:
        assert client.get(f"{running.url}/health").status_code == 200


@pytest.fixture
def api(server, redis_server) -> Iterator[httpx.Client]:
    """Yield a client of the server with an empty Redis."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        client.put("/api/admin/external-service/faults", json={"failure_rate": 0, "latency_ms": 0})
        yield client


@pytest.fixture
def record() -> PageRecord:
    from tests.browser.browser import PageRecord

    return PageRecord()


@pytest.fixture
def context(browser, record, start_server) -> Iterator[BrowserContext]:  # closed before a server started
    """Yield a new browser context. After the test, its pages must have logged no errors."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as fresh:
        fresh.set_default_timeout(TIMEOUT_MS)
        record.follow(fresh)
        yield fresh
    assert record.complaints == []
    requested = {urlsplit(request.url.removeprefix("blob:")).netloc for request in record.requests}
    assert len(requested) <= 1  # no other host


@pytest.fixture
def page(context, server, api) -> Page:
    from tests.browser.browser import open_page

    return open_page(context, server.url)
