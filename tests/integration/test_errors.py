"""Every answer has a request id, every error is a problem document, and nothing leaks."""

import re

import pytest

from tests.integration.test_ingest import assert_problem


async def test_there_is_no_such_path(api):
    assert_problem(await api.get("/nothing"), 404, "NOT_FOUND")


async def test_a_method_that_is_not_allowed_is_told_which_are(api):
    answer = await api.delete("/api/metrics/summary")
    assert_problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET"


async def test_the_unforeseen_is_an_internal_error_that_tells_nothing(api, monkeypatch):
    async def broken(*_):
        raise RuntimeError("secret detail at /srv/app.py")

    monkeypatch.setattr(api.state["metrics"], "types", broken)
    answer = await api.get("/api/metrics/types")
    assert_problem(answer, 500, "INTERNAL_ERROR")
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/metrics/types", "/docs"])
async def test_every_answer_has_a_request_id(api, path):
    ids = [(await api.get(path)).headers["x-request-id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert re.fullmatch(r"[0-9a-f]{32}", ids[0])


async def test_a_sane_request_id_is_kept_and_another_replaced(api):
    kept = await api.get("/health", headers={"X-Request-ID": "trace-1.2:3_4"})
    assert kept.headers["x-request-id"] == "trace-1.2:3_4"
    for insane in ("", "a b", "x" * 129, '"><script>'):
        answer = await api.get("/health", headers={"X-Request-ID": insane})
        assert answer.headers["x-request-id"] != insane


async def test_health_in_three_forms(api):
    for path in ("/health", "/health/ready"):
        answer = await api.get(path)
        assert answer.status_code == 200
        assert answer.json().keys() == {"status", "redis_connected", "timestamp"}
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
                    if status[0] in "45" and "health" not in path:
                        assert problem, (method, path, status)
                        assert problem["examples"], (method, path, status)

    async def test_every_reference_leads_somewhere(self, api):
        answer = await api.get("/openapi.json")
        names = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
        assert names <= answer.json()["components"]["schemas"].keys()
        assert "HTTPValidationError" not in names
