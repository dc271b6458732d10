from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from src.provider.app import create_provider_app
from src.provider.faults import Faults
from tests.support.clock import FakeClock, FakeRandomizer


@pytest.fixture
def provider(clock: FakeClock) -> FastAPI:
    """Return a provider without faults. Each of its random numbers is 0.5."""
    return create_provider_app(
        Faults(), chance=FakeRandomizer().random, now=clock.monotonic, sleep=clock.sleep
    )


@pytest.fixture
async def client(provider: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(provider), base_url="http://provider"
    ) as client:
        yield client
