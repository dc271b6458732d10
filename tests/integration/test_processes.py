"""The API as real processes: two workers, one truth; and a start that fails plainly."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter

import httpx
import pytest

from tests.support.api import metric

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**settings: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "PYTHONPATH", "LANG"}
    }
    return kept | {"EXTERNAL_SERVICE_FAILURE_RATE": "0"} | settings


class Server:
    """`python -m uvicorn src.main:app` with two workers."""

    def __init__(self, redis_url: str, folder, **settings: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "uvicorn", "src.main:app", "--port", str(port), "--workers", "2"]
        self.log = folder / "server.log"
        self._output = self.log.open("wb")
        self.process = subprocess.Popen(
            command,
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


@pytest.fixture
def start_server(redis_server, tmp_path):
    servers = []

    def start(**settings):
        servers.append(Server(redis_server.url, tmp_path, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


async def each_its_own_connection(server, method, path, times, **options):
    """Many requests, each over a new connection, so that both workers get some."""

    async def one(number):
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            return await client.request(method, path, **options)

    return await asyncio.gather(*(one(number) for number in range(times)))


async def test_two_workers_are_one_service(start_server):
    server = start_server(RATE_LIMIT_READ_REQUESTS="1000")
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await server.until_healthy(client)

        # the quota is the fleet's
        posts = await each_its_own_connection(server, "POST", "/api/metrics", 50, json=metric())
        assert Counter(answer.status_code for answer in posts) == {201: 10, 429: 40}

        # a cold summary is computed once for both
        path = "/api/metrics/summary?type=cpu&period=hourly"
        answers = await each_its_own_connection(server, "GET", path, 40)
        assert len({answer.content for answer in answers}) == 1
        assert answers[0].json()["count"] == 10

        # the breaker is the same from every worker, and so is the failure rate
        await client.post("/api/admin/circuit-breaker/open")
        statuses = await each_its_own_connection(server, "GET", "/api/circuit-breaker/status", 20)
        assert {answer.json()["state"] for answer in statuses} == {"OPEN"}
        await client.post("/api/admin/circuit-breaker/close")
        rate = "/api/admin/external-service/failure-rate"
        await client.put(rate, json={"failure_rate": 0.5})
        rates = await each_its_own_connection(server, "GET", rate, 20)
        assert {answer.json()["failure_rate"] for answer in rates} == {0.5}

        # and the figures are everybody's
        exposition = (await client.get("/metrics")).text
        line = 'http_requests_total{method="POST",route="/api/metrics",status="429"} 40.0'
        assert line in exposition


async def test_a_worker_that_is_killed_loses_nothing_acknowledged(start_server):
    server = start_server(RATE_LIMIT_REQUESTS="1000")
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await server.until_healthy(client)
    accepted = 0
    workers = re.findall(r"Started server process \[(\d+)\]", server.log.read_text())

    async def post():
        nonlocal accepted
        try:
            async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
                accepted += (await client.post("/api/metrics", json=metric())).status_code == 201
        except httpx.TransportError:
            pass  # it was in the hands of the one that was killed

    posts = [asyncio.create_task(post()) for _ in range(100)]
    await asyncio.sleep(0.05)
    os.kill(int(workers[-1]), signal.SIGKILL)
    await asyncio.gather(*posts)
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await server.until_healthy(client)
        types = (await client.get("/api/metrics/types")).json()
    assert types[0]["count"] >= accepted > 0


@pytest.mark.parametrize("module", [["src"], ["uvicorn", "src.main:app"]])
def test_a_wrong_setting_stops_the_start_with_one_line_that_names_it(module):
    started = subprocess.run(
        [sys.executable, "-m", *module],
        env=environment(RATE_LIMIT_REQUESTS="many"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert started.returncode != 0
    assert started.stderr.strip().splitlines()[-1].startswith("Invalid setting RATE_LIMIT_REQUESTS:")
    assert "Traceback" not in started.stderr
