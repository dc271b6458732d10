"""The processes of the server: their start, signals, end and clean-up."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.support.server import Server, environment, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals a program could catch here"),
]

SRC = ("src",)
UVICORN = ("uvicorn", "src.main:app", "--no-proxy-headers")


@pytest.fixture
def start(redis_server, tmp_path):
    servers = []

    def begin(command=SRC, workers=1, **settings):
        servers.append(Server(redis_server.url, tmp_path, command=command, workers=workers, **settings))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        server._output.close()


async def serving(server, workers=1):
    await server.until_logged("Application startup complete.", workers)
    async with httpx.AsyncClient(base_url=server.url) as client:
        await server.until_healthy(client)


def pids(server):
    """Return the ids of the processes that serve."""
    return [int(str(line["event"]).split("[")[1][:-1]) for line in started(server)]


def started(server):
    return [line for line in server.lines() if str(line.get("event")).startswith("Started server process")]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until_gone(*processes):
    async with asyncio.timeout(20):
        while any(map(is_running, processes)):
            await asyncio.sleep(0.05)


# ------------------------------------------------------------------ signals during the start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
async def test_a_signal_ends_a_start_at_once_and_releases_its_resources(start, number):
    server = start(("uvicorn", "tests.support.slow_apps:start_without_end"))
    await server.until_logged("starting")
    began = time.monotonic()
    server.process.send_signal(number)
    code = await server.end()
    assert time.monotonic() - began < 4
    assert code == (
        3 if number == signal.SIGINT else -signal.SIGTERM
    )  # after a SIGINT during the start, uvicorn reports a failed start
    assert server.lines("given back")
    assert server.lines("start_stopped")
    assert "Traceback" not in server.log.read_text()


async def test_a_signal_ends_the_start_of_several_workers(start):
    server = start(("uvicorn", "tests.support.slow_apps:start_without_end"), workers=2)
    await server.until_logged("starting", 2)
    server.process.terminate()
    assert await server.end() == 0
    assert len(server.lines("given back")) == 2


async def test_a_signal_ends_a_start_that_waits_for_a_thread(start):
    server = start(("uvicorn", "tests.support.slow_apps:start_in_a_thread"))
    await server.until_logged("starting")
    began = time.monotonic()
    server.process.terminate()
    assert await server.end() == -signal.SIGTERM
    assert time.monotonic() - began < 4


async def test_a_process_that_hangs_at_its_end_is_ended_with_a_traceback(start):
    server = start(("uvicorn", "tests.support.slow_apps:end_without_end"))
    await server.until_logged("Application startup complete.")
    await server.until_logged(f"Uvicorn running on {server.url} (Press CTRL+C to quit)")
    began = time.monotonic()
    server.process.terminate()
    assert await server.end() == 1
    assert 4 < time.monotonic() - began < 10
    assert "Timeout (" in server.log.read_text()


async def test_a_signal_during_the_import_ends_the_process_cleanly(start):
    server = start(
        RATE_LIMIT_REQUEST="10"
    )  # there is no such setting; this is logged while the application is created
    await server.until_logged("unknown_setting")
    server.process.terminate()
    assert await server.end(10) == 0
    assert "Traceback" not in server.log.read_text()


# ------------------------------------------------------------------ signals while it serves


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGQUIT, 1), (signal.SIGTERM, 2), (signal.SIGQUIT, 2)],
)
async def test_a_signal_stops_the_service_cleanly_with_exit_code_0(start, number, workers):
    server = start(workers=workers)
    await serving(server, workers)
    server.process.send_signal(number)
    assert await server.end() == 0
    assert len(server.lines("Application shutdown complete.")) == workers
    await until_gone(*pids(server))


async def test_a_single_process_stops_gracefully_when_its_terminal_closes(start):
    server = start()
    await serving(server)
    server.process.send_signal(signal.SIGHUP)
    assert await server.end() == 0
    assert server.lines("Application shutdown complete.")


async def test_under_nohup_the_end_of_the_terminal_is_ignored(redis_server, tmp_path):
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited
    try:
        server = Server(redis_server.url, tmp_path, command=SRC, workers=1)
    finally:
        signal.signal(signal.SIGHUP, handler)
    try:
        await serving(server)
        server.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/health/live")).status_code == 200
    finally:
        server.stop()


@pytest.mark.parametrize("command", [SRC, UVICORN])
async def test_workers_whose_parent_is_killed_stop_cleanly_and_free_the_port(start, command):
    server = start(command, workers=2)
    await serving(server, 2)
    server.process.kill()
    await until_gone(*pids(server))
    assert len(server.lines("Application shutdown complete.")) == 2
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", server.port))


async def test_a_worker_that_is_killed_is_replaced(start):
    server = start(workers=2)
    await serving(server, 2)
    os.kill(pids(server)[0], signal.SIGKILL)
    await server.until_logged("Application startup complete.", 3)
    server.process.terminate()
    assert await server.end() == 0


# ------------------------------------------------------------------ exit codes and remaining files


@pytest.mark.parametrize(
    ("command", "workers", "code"),
    [
        (SRC, 1, 3),
        (SRC, 2, 3),
        (UVICORN, 1, 3),
        # the parent process of uvicorn does not import the service, and has its own exit code
        (UVICORN, 2, 0),
    ],
)
async def test_a_start_that_fails_ends_with_3_but_for_uvicorns_own_parent(tmp_path, command, workers, code):
    (tmp_path / "data").write_text("no folder")
    server = Server("embedded://", tmp_path, command=command, workers=workers)
    assert await server.end(60) == code
    assert f"embedded Redis in {tmp_path / 'data'}: the folder cannot be created" in server.log.read_text()


def test_an_occupied_port_ends_the_process_with_3_and_a_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {"APP_PORT": str(taken.getsockname()[1]), "APP_HOST": "127.0.0.1"}
        for workers in ("1", "2"):
            ended = subprocess.run(
                [sys.executable, "-m", "src"],
                env=environment(
                    REDIS_URL=f"redis://127.0.0.1:{free_port()}", WEB_CONCURRENCY=workers, **settings
                ),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 3
            assert "address already in use" in ended.stdout.lower()


@pytest.mark.parametrize("command", [SRC, UVICORN])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_folder_of_metrics_is_left_behind(start, tmp_path, command, number):
    folders = tmp_path / "temporary"
    folders.mkdir()
    server = start(command, workers=2, TMPDIR=str(folders))
    await serving(server, 2)
    (folder,) = folders.iterdir()
    assert list(folder.glob("*.db"))
    server.process.send_signal(number)
    await server.end()
    await until_gone(*pids(server))
    assert list(folders.iterdir()) == []
