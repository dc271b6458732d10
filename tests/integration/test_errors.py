"""Every answer has a request id, and every error is a problem document without internal details."""

import asyncio
import re

import pytest

from src.services.events.feed import TooManyFollowersError
from src.services.lab import LabBusyError
from tests.integration.test_ingest import assert_problem
from tests.support.api import CALM, PLENTY, metric, running_api


async def test_an_unknown_path_is_a_404(api):
    assert_problem(await api.get("/nothing"), 404, "NOT_FOUND")


async def test_a_405_lists_the_allowed_methods(api):
    answer = await api.delete("/api/metrics/summary")
    assert_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD"


either_way = pytest.mark.parametrize("method", ["GET", "POST"], ids=["the framework", "a hot route"])


async def request_broken_service(api, method, **options):
    path = "/api/metrics/types" if method == "GET" else "/api/metrics"
    return await api.request(method, path, json=metric(), **options)


@either_way
async def test_an_unexpected_error_is_an_internal_error_without_details(api, monkeypatch, method):
    async def broken(*_):
        raise RuntimeError("secret detail at /srv/app.py")

    monkeypatch.setattr(api.state["metrics"], "types", broken)
    monkeypatch.setattr(api.state["metrics"], "ingest_one", broken)
    answer = await request_broken_service(api, method)
    assert_problem(answer, 500, "INTERNAL_ERROR")
    assert "secret" not in answer.text


@either_way
async def test_an_unexpected_error_is_logged_without_data_of_the_client(redis_server, capsys, method):
    """In the past, the log line of a 500 had the local variables of all frames, including the admin key."""

    async def broken(*_):
        raise RuntimeError("broken")

    async with running_api(redis_server.url, log_level="INFO", **PLENTY, **CALM) as api:
        api.state["metrics"].types = api.state["metrics"].ingest_one = broken
        await request_broken_service(api, method, headers={"X-API-Key": "hunter2"})
    output = capsys.readouterr().out
    (line,) = (line for line in output.splitlines() if '"unexpected_error"' in line)
    assert "hunter2" not in output
    assert "RuntimeError" in line
    assert len(line) < 10_000


HEADS = [
    "/", "/health", "/health/live", "/health/ready", "/metrics", "/docs", "/redoc", "/openapi.json",
    "/dashboard", "/dashboard/icon.svg", "/docs/swagger-ui.css", "/docs/redoc.standalone.js",
    "/api/metrics/summary?type=cpu", "/api/metrics/list", "/api/metrics/types",
    "/api/metrics/labels?type=cpu", "/api/metrics/series?type=cpu", "/api/metrics/export?type=cpu",
    "/api/overview", "/api/circuit-breaker/status", "/api/admin/external-service/failure-rate",
    "/api/admin/external-service/faults", "/api/admin/proxy/policy", "/api/admin/retention",
    "/api/proxy/status", "/proxy/get",
    "/circuit_state", "/invoke", "/invoke_error", "/logs", "/logs?follow=true", "/api/events",
]  # fmt: skip
UNSTABLE = {
    "x-request-id",
    "ratelimit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "content-length",
    "age",
}
STREAMED = {"/logs?follow=true", "/api/events", "/api/metrics/export?type=cpu"}


@pytest.mark.parametrize("path", HEADS)
async def test_every_get_has_its_head(api, path):
    """In the past, only three routes supported HEAD. A HEAD of a stream ends at once."""
    async with asyncio.timeout(20):
        answer = await api.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    if path not in STREAMED:
        got = await api.get(path)
        assert answer.headers.keys() - UNSTABLE == got.headers.keys() - UNSTABLE
        if path.startswith(("/docs", "/dash", "/api/metrics")):
            assert answer.headers["content-length"] == got.headers["content-length"]


async def test_every_get_route_is_tested(api):
    document = (await api.get("/openapi.json")).json()
    gets = {path for path, methods in document["paths"].items() if "get" in methods}
    tried = {path.partition("?")[0] for path in HEADS}
    assert gets - tried == {"/invoke_delay", "/proxy/{path}"}, "the first one takes 3 s"
    assert not any("head" in methods for path, methods in document["paths"].items() if "proxy" not in path)


async def test_a_head_of_an_unknown_path_is_a_404(api):
    assert (await api.head("/nothing")).status_code == 404


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Host": "localhost", "Origin": "http://["}])
async def test_a_malformed_host_header_is_rejected(api, headers):
    """In the past the status was 500."""
    answer = await api.post("/api/admin/circuit-breaker/close", headers=headers)
    assert_problem(answer, 403, "FORBIDDEN")


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/metrics/types", "/docs"])
async def test_every_answer_has_a_request_id(api, path):
    ids = [(await api.get(path)).headers["x-request-id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert re.fullmatch(r"[0-9a-f]{32}", ids[0])


async def test_a_valid_request_id_is_kept_and_an_invalid_one_replaced(api):
    kept = await api.get("/health", headers={"X-Request-ID": "trace-1.2:3_4"})
    assert kept.headers["x-request-id"] == "trace-1.2:3_4"
    for insane in ("", "a b", "x" * 129, '"><script>'):
        answer = await api.get("/health", headers={"X-Request-ID": insane})
        assert answer.headers["x-request-id"] != insane


async def test_health_liveness_and_readiness(api):
    members = {"status", "redis_connected", "timestamp"}
    for path, more in (("/health", set()), ("/health/ready", {"ingest", "reads"})):
        answer = await api.get(path)
        assert answer.status_code == 200
        assert answer.json().keys() == members | more
        assert answer.json()["status"] == "healthy"
        assert answer.json()["redis_connected"] is True
    assert (await api.get("/health/live")).status_code == 200


async def test_the_metrics_of_the_service_are_in_prometheus_format(api):
    await api.get("/nothing")
    answer = await api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'http_requests_total{method="GET",route="unmatched",status="404"}' in answer.text


class TestDocumentation:
    @pytest.mark.parametrize("page", ["/docs", "/redoc"])
    async def test_the_pages_need_no_internet(self, api, page):
        html = (await api.get(page)).text
        sources = re.findall(r'(?:src|href)="([^"]+)"', html)
        assert sources
        for source in sources:
            assert source.startswith("/"), source
            assert (await api.get(source)).status_code == 200

    async def test_every_endpoint_has_a_summary_and_its_errors_with_examples(self, api):
        document = (await api.get("/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert operation["summary"], (method, path)
                assert operation["description"], (method, path)
                for status, answer in operation["responses"].items():
                    problem = answer.get("content", {}).get("application/problem+json")
                    if status[0] in "45" and (status != "503" or "health" not in path):
                        assert problem, (method, path, status)
                        assert problem["examples"], (method, path, status)

    async def test_every_reference_resolves(self, api):
        answer = await api.get("/openapi.json")
        names = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
        assert names <= answer.json()["components"]["schemas"].keys()
        assert "HTTPValidationError" not in names

    @pytest.mark.parametrize(
        ("method", "path", "sent"),
        [
            ("post", "/api/metrics", {"content": b"{"}),
            ("post", "/api/metrics", {"content": b"x" * (64 * 1024 + 1)}),
            ("post", "/api/metrics", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
            ("post", "/api/metrics/batch", {"content": b"[" + b"1," * 10_000 + b"1]"}),
            ("post", "/api/metrics/batch", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
            ("post", "/api/metrics", {"json": {**metric(), "value": "1"}}),
            ("get", "/logs?follow=true", {}),
            ("get", "/api/events", {}),
            ("get", "/invoke?count=1", {}),
            ("post", "/stress", {}),
        ],
    )
    async def test_an_error_is_documented_word_for_word(self, api, monkeypatch, method, path, sent):
        def taken(*_):
            raise TooManyFollowersError(1)

        async def busy(*_):
            raise LabBusyError(1)

        monkeypatch.setattr(api.state["event_feed"], "slot", taken)
        monkeypatch.setattr(api.state["lab"], "run", busy)
        monkeypatch.setattr(api.state["lab"], "stress", busy)
        document = (await api.get("/openapi.json")).json()
        answer = await api.request(method.upper(), path, **sent)
        documented = document["paths"][path.partition("?")[0]][method]["responses"][str(answer.status_code)]
        examples = documented["content"]["application/problem+json"]["examples"]
        example = examples[answer.json()["code"]]["value"]
        of_this_request = {"timestamp", "request_id"}
        assert without(example, of_this_request) == without(answer.json(), of_this_request)

    @pytest.mark.parametrize(
        ("method", "path", "sent"),
        [
            ("post", "/api/metrics", {"json": metric(), "headers": {"Idempotency-Key": "again"}}),
            ("post", "/api/metrics/batch", {"json": [metric(), {}], "headers": {"Idempotency-Key": "again"}}),
            ("post", "/api/metrics", {"content": b"{"}),
            ("get", "/api/metrics/summary?type=cpu", {}),
            ("get", "/api/metrics/summary?type=cpu", {"headers": {"If-None-Match": "*"}}),
            ("get", "/api/metrics/list?limit=1", {}),
            ("get", "/api/metrics/types", {}),
            ("get", "/invoke", {}),
            ("get", "/logs", {}),
            ("get", "/", {}),
            ("get", "/", {"headers": {"Accept": "text/html"}}),
            ("get", "/health", {}),
            ("get", "/metrics", {}),
            ("post", "/reset_circuit", {}),
        ],
    )
    async def test_the_headers_of_an_answer_are_those_documented(self, api, method, path, sent):
        await api.post("/api/metrics/batch", json=[metric(), metric()])
        document = (await api.get("/openapi.json")).json()
        for _ in range(2):  # the second answer is a replay, or comes from the cache
            answer = await api.request(method.upper(), path, **sent)
        responses = document["paths"][path.partition("?")[0]][method]["responses"]
        documented = {name.lower() for name in responses[str(answer.status_code)]["headers"]}
        assert documented == answer.headers.keys() - {"content-type", "content-length"}


def without(document, names):
    return {name: value for name, value in document.items() if name not in names}
