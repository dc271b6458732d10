"""Outgoing calls ignore the proxies and certificates of the environment."""

import asyncio
import subprocess
import sys

import httpx
import pytest

from tests.support.api import metric
from tests.support.collector import Collector
from tests.support.foreign_environment import FOREIGN
from tests.support.provider import running_provider
from tests.support.server import environment

pytestmark = pytest.mark.slow


async def test_every_outgoing_call_goes_where_the_settings_say(start_server, collector: Collector):
    with running_provider() as provider:
        server = start_server(
            workers=1,
            EXTERNAL_SERVICE_URL=provider.url,
            PROXY_UPSTREAM_URL=provider.url,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            **FOREIGN,
        )
        async with httpx.AsyncClient(base_url=server.url, timeout=20, trust_env=False) as client:
            await server.until_healthy(client)
            assert (await client.post("/api/metrics", json=metric())).status_code == 201
            summary = await client.get("/api/metrics/summary?type=cpu")
            assert (summary.status_code, summary.json()["degraded"]) == (200, False)
            assert (await client.get("/proxy/get")).status_code == 200
            rate = "/api/admin/external-service/failure-rate"
            assert (await client.put(rate, json={"failure_rate": 0.0})).status_code == 200
        stats = httpx.get(f"{provider.url}/stats", trust_env=False).json()
        assert {"get", "kv"} <= stats["by_endpoint"].keys()

        set_rate = (
            f"from src.services.external_service import set_failure_rate as s; print(s(0.5, '{server.url}'))"
        )
        experiment = ["-m", "src.cli", "experiment", "--url", provider.url, "--number_requests", "2"]
        for program in (["-c", set_rate], experiment):
            ran = await asyncio.to_thread(
                subprocess.run, [sys.executable, *program], env=environment(**FOREIGN), capture_output=True,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, ran.stderr
        server.stop()  # the collected commands are sent
    assert {span.name for span in collector.spans} >= {"external-service.attempt", "GET /api/metrics/summary"}
    assert "http.server.request.duration" in collector.metrics
