"""The API on a real Redis, in process."""

import pytest

from tests.support.api import CALM, PLENTY, running_api


@pytest.fixture
async def api(redis_server):
    async with running_api(redis_server.url, **PLENTY, **CALM) as client:
        yield client
