"""Fixtures for pytest. Write `pytest_plugins = ["standfast.pytest_plugin"]` into the top `conftest.py`.

The fixtures are synchronous, so they work with pytest-asyncio and with anyio's plugin.
"""

from collections.abc import Iterator

import pytest

from .testing import FakeClock, RecordingListener, policies_off, quick_retries


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return a clock whose time changes only when the test moves it."""
    return FakeClock()


@pytest.fixture
def recording_listener() -> RecordingListener:
    """Return a listener that keeps the events that it receives."""
    return RecordingListener()


@pytest.fixture(name="policies_off")
def _policies_off() -> Iterator[None]:
    """Let every policy only run its call during the test."""
    with policies_off():
        yield


@pytest.fixture(name="quick_retries")
def _quick_retries() -> Iterator[None]:
    """Let every retry make one attempt, without a wait, during the test."""
    with quick_retries():
        yield
