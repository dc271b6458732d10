"""The API as real processes: two workers with the same state, and a failed start."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import httpx
import pytest

from tests.support.api import metric
from tests.support.server import each_its_own_connection, environment

pytestmark = pytest.mark.slow


async def test_two_workers_are_one_service(start_server):
    server = start_server(RATE_LIMIT_READ_REQUESTS="1000")
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        await server.until_healthy(client)

        # all workers share the quota
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

        # the numbers are those of all workers
        exposition = (await client.get("/metrics")).text
        line = 'http_requests_total{method="POST",route="/api/metrics",status="429"} 40.0'
        assert line in exposition


async def test_a_head_leaves_its_connection_usable(start_server):
    """The cases: a hot route, a route of FastAPI, a stream, and an error."""
    server = start_server()
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with httpx.AsyncClient(base_url=server.url, timeout=20, limits=limits) as client:
        await server.until_healthy(client)
        for path in (
            "/api/metrics/summary?type=cpu",
            "/health",
            "/api/events",
            "/logs?follow=true",
            "/nothing",
        ):
            head = await client.head(path)
            assert (head.content, "x-request-id" in head.headers) == (b"", True), path
            assert (await client.get("/health/live")).json() == {"status": "alive"}, path


async def test_a_killed_worker_loses_no_acknowledged_point(start_server):
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
            pass  # the killed process had it

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
