"""The API in separate processes, with uvicorn."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Return an unused port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a process: only the necessary variables of the test process."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    return kept | {"PYTHONPATH": str(ROOT), "EXTERNAL_SERVICE_FAILURE_RATE": "0"} | settings


class Server:
    """The API, or another application, in separate processes. They run in `folder`, which has no `.env`.

    Args:
        redis_url: The URL of its Redis.
        folder: The working folder, with the log.
        workers: The number of worker processes.
        command: The arguments of `python -m`, without the port: `uvicorn …`, or `src`.
        port: The port; None for a free one.
        under: A command to which the `python` command is appended.
        settings: The environment.
    """

    def __init__(
        self,
        redis_url: str,
        folder,
        *,
        workers: int = 2,
        command: Sequence[str] = ("uvicorn", "src.main:app"),
        port: int | None = None,
        under: Sequence[str] = (),
        **settings: str,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if command == ("src",):
            settings |= {"APP_PORT": str(self.port), "WEB_CONCURRENCY": str(workers), "APP_HOST": "127.0.0.1"}
        else:
            command = (*command, "--port", str(self.port), "--workers", str(workers))
        self.log = folder / f"server-{self.port}.log"
        self._output = self.log.open("ab")
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", *command],
            cwd=folder,
            env=environment(REDIS_URL=redis_url, **settings),
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    async def until_healthy(self, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    if (await client.get("/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    def lines(self, event: str | None = None) -> list[dict[str, object]]:
        """Return the lines of the log, or only those of `event`."""
        logged = []
        for line in self.log.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):
                logged.append(json.loads(line))
        return [line for line in logged if event in {None, line.get("event")}]

    async def until_logged(self, event: str, times: int = 1) -> None:
        """Wait until `event` has been logged the given number of times."""
        async with asyncio.timeout(30):
            while len(self.lines(event)) < times:
                await asyncio.sleep(0.05)

    async def end(self, seconds: float = 20) -> int:
        """Wait until the server ends by itself, and return its exit code."""
        try:
            return await asyncio.to_thread(self.process.wait, seconds)
        finally:
            self._output.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=15)
        self._output.close()


async def each_its_own_connection(server, method, path, times, **options):
    """Send many requests, each over a new connection, so that both workers get some of them."""

    async def one(number):
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            return await client.request(method, path, **options)

    return await asyncio.gather(*(one(number) for number in range(times)))
