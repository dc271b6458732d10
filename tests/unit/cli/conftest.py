"""A terminal that records its output, and a provider in this process on the test's clock."""

import io
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from src.cli.provider_client import ProviderClient, connect
from tests.support.clock import FakeClock, FakeRandomizer


class Terminal(Console):
    """A console of 80 columns that records its output. By default it is no TTY."""

    def __init__(self, *, force_terminal: bool = False) -> None:
        super().__init__(
            file=io.StringIO(), width=80, markup=False, emoji=False, highlight=False,
            force_terminal=force_terminal,
        )  # fmt: skip

    @property
    def text(self) -> str:
        assert isinstance(self.file, io.StringIO)
        return self.file.getvalue()

    def lines_with(self, *words: str) -> list[str]:
        return [line for line in self.text.splitlines() if all(word in line for word in words)]


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
async def provider(clock: FakeClock) -> AsyncIterator[ProviderClient]:
    async with connect(None, clock, FakeRandomizer()) as client:
        yield client
