"""The API on a real Redis, in process."""

import pytest

from tests.support.api import CALM, PLENTY, running_api
from tests.support.collector import running_collector
from tests.support.server import Server


@pytest.fixture(autouse=True)
def without_counter_flushes(monkeypatch):
    """Disable the flushes of the counters, so that a test counts only its own round trips."""
    monkeypatch.setattr("src.services.overview.counters.FLUSH_SECONDS", 3600)


@pytest.fixture
async def api(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as client:
        yield client


@pytest.fixture
def start_server(redis_server, tmp_path):
    servers = []

    def start(**settings):
        servers.append(Server(redis_server.url, tmp_path, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def collector():
    with running_collector() as collector:
        yield collector
