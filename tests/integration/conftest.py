"""The API on a real Redis, in process."""

import pytest

from tests.support.api import CALM, PLENTY, running_api


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Keep the pulse's reports out of the round trips that a test counts."""
    monkeypatch.setattr("src.services.pulse.REPORT_SECONDS", 3600)


@pytest.fixture
async def api(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as client:
        yield client
