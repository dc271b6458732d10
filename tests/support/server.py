"""The API as processes of its own, under uvicorn."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**settings: str) -> dict[str, str]:
    """What a process is started with: of whoever runs the tests, only what it needs."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    return kept | {"PYTHONPATH": str(ROOT), "EXTERNAL_SERVICE_FAILURE_RATE": "0"} | settings


class Server:
    """`python -m uvicorn src.main:app`, run in `folder`: the .env of the checkout is not read."""

    def __init__(self, redis_url: str, folder, *, workers: int = 2, **settings: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "uvicorn", "src.main:app", "--port", str(port)]
        command += ["--workers", str(workers)]
        self.log = folder / "server.log"
        self._output = self.log.open("wb")
        self.process = subprocess.Popen(
            command,
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

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=15)
        self._output.close()


async def each_its_own_connection(server, method, path, times, **options):
    """Many requests, each over a new connection, so that both workers get some."""

    async def one(number):
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            return await client.request(method, path, **options)

    return await asyncio.gather(*(one(number) for number in range(times)))
