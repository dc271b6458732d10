"""The external service over real sockets, with responses that violate HTTP."""

import asyncio

from tests.support.api import CALM, PLENTY, metric, running_api
from tests.support.upstream import running_upstream


async def test_bytes_after_an_answer_are_not_the_reference_data_of_another_type(redis_server):
    async def answer_too_much(_upstream, line, writer):
        name = line.split()[1].rpartition("/")[2]
        for type_name in (name, "forged"):
            body = b'{"type": "%b"}' % type_name.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with (
        running_upstream(answer_too_much) as service,
        running_api(redis_server.url, external_service_url=service.url, **PLENTY, **CALM) as api,
    ):
        for kind in ("cpu", "disk", "memory"):
            await api.post("/api/metrics", json=metric(kind=kind))
            summary = await api.get(f"/api/metrics/summary?type={kind}")
            assert summary.json()["reference"] == {"type": kind}


async def test_a_flood_of_interim_answers_does_not_occupy_the_worker(redis_server):
    async def flood(_upstream, _line, writer):
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
            await writer.drain()

    settings = PLENTY | CALM | {"external_service_timeout": 60, "external_service_attempts": 1}
    async with (
        running_upstream(flood) as service,
        running_api(redis_server.url, external_service_url=service.url, **settings) as api,
    ):
        await api.post("/api/metrics", json=metric())
        async with asyncio.timeout(30):
            summary = await api.get("/api/metrics/summary?type=cpu")
        assert (summary.status_code, summary.json()["code"]) == (503, "EXTERNAL_SERVICE_UNAVAILABLE")
