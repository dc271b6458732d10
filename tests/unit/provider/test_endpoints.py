"""The provider's endpoints without faults."""

import re

import httpx
import pytest
from fastapi import FastAPI

from src.provider.app import create_provider_app
from src.provider.faults import Faults
from src.provider.key_value import key_value_router
from src.provider.problems import render_problems
from src.provider.store import KeyValueStore

KEY = "/kv/metric-types/cpu.load/host:1"
SCORE = {"cpf": "123.456.789-09"}


def client_of(app, **options):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url="http://provider")


def problem_of(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"title", "status", "detail"}
    assert document["status"] == answer.status_code
    return document


class TestKeyValueStore:
    async def test_a_key_with_slashes_exists_from_put_to_delete(self, client):
        assert (await client.put(KEY, json={"unit": "percent"})).status_code == 201
        assert (await client.put(KEY, json={"unit": "ratio"})).status_code == 200
        assert (await client.get(KEY)).json() == {"unit": "ratio"}
        assert (await client.delete(KEY)).status_code == 204
        assert (await client.delete(KEY)).status_code == 404
        assert "no key metric-types/cpu.load/host:1" in problem_of(await client.get(KEY))["detail"]

    @pytest.mark.parametrize(
        "value", [b"null", b'"text"', b"[1, 2.50]", b"12345678901234567890123", b"  {} "]
    )
    async def test_any_json_comes_back_byte_for_byte(self, client, value):
        await client.put(KEY, content=value)
        assert (await client.get(KEY)).content == value

    @pytest.mark.parametrize(
        "value", [b"", b"{", b"NaN", b"[Infinity]", b"-Infinity", b'"\xff"', b"{'a': 1}"]
    )
    async def test_a_body_that_is_not_json_is_rejected(self, client, value):
        answer = await client.put(KEY, content=value)
        assert answer.status_code == 400
        assert "not JSON" in problem_of(answer)["detail"]
        assert (await client.get(KEY)).status_code == 404

    async def test_a_value_has_at_most_64_kib(self, client):
        largest = b'"%s"' % (b"a" * (64 * 1024 - 2))
        assert (await client.put(KEY, content=largest)).status_code == 201
        answer = await client.put(KEY, content=largest + b" ")
        assert answer.status_code == 413
        assert "65536 bytes" in problem_of(answer)["detail"]

    @pytest.mark.parametrize(("length", "status"), [(0, 422), (1, 201), (256, 201), (257, 422)])
    async def test_a_key_has_1_to_256_characters(self, client, length, status):
        answer = await client.put("/kv/" + "é" * length, json=1)
        assert answer.status_code == status
        if status == 422:
            assert problem_of(answer)["detail"].startswith("key: ")

    async def test_a_full_store_is_an_error_507(self):
        app = FastAPI()
        app.include_router(key_value_router(KeyValueStore({"a": b"1"}, capacity=1)))
        render_problems(app)
        async with client_of(app) as client:
            answer = await client.put("/kv/b", json=1)
        assert answer.status_code == 507
        assert "delete one first" in problem_of(answer)["detail"]

    async def test_a_few_metric_types_are_known_from_the_start(self, client):
        keys = (await client.get("/kv")).json()
        assert keys == sorted(keys)
        assert {"metric-types/cpu_usage", "metric-types/temperature", "metric-types/page_views"} <= set(keys)
        for key in keys:
            assert set((await client.get(f"/kv/{key}")).json()) == {"type", "unit", "description", "owner"}

    async def test_each_provider_has_separate_keys(self, client, clock):
        other = create_provider_app(Faults(), chance=lambda: 0.5, now=clock.monotonic, sleep=clock.sleep)
        await client.put(KEY, json=1)
        async with client_of(other) as others:
            assert (await others.get(KEY)).status_code == 404


class TestEcho:
    async def test_get_echoes_the_request(self, client):
        answer = await client.get("/get?a=1&a=2&b=", headers={"Client-Id": "me"})
        echo = answer.json()
        assert (echo["path"], echo["args"]) == ("/get", {"a": ["1", "2"], "b": [""]})
        assert echo["headers"]["client-id"] == "me"

    async def test_delay_answers_after_the_given_seconds(self, client, clock):
        answer = await clock.drive(client.get("/delay/1.5"))
        assert answer.json() == {"delayed_seconds": 1.5}
        assert clock.monotonic() == 1.5

    @pytest.mark.parametrize("seconds", ["-1", "60.1", "nan", "inf", "soon"])
    async def test_a_delay_out_of_range_is_rejected(self, client, clock, seconds):
        answer = await client.get(f"/delay/{seconds}")
        assert answer.status_code == 422
        assert problem_of(answer)["detail"].startswith("seconds: ")
        assert clock.sleeps == []

    @pytest.mark.parametrize("code", [200, 201, 204, 205, 299, 302, 304, 400, 404, 429, 500, 599])
    async def test_status_answers_with_that_code(self, client, code):
        answer = await client.get(f"/status/{code}")
        assert answer.status_code == code
        if code in {204, 205, 304}:
            assert answer.content == b""
        elif code >= 400:
            problem_of(answer)

    @pytest.mark.parametrize("code", ["100", "199", "600", "teapot"])
    async def test_other_status_codes_are_rejected(self, client, code):
        answer = await client.get(f"/status/{code}")
        assert answer.status_code == 422
        assert problem_of(answer)["detail"].startswith("code: ")


class TestScore:
    async def test_the_second_call_within_a_second_is_rejected(self, client, clock):
        assert (await client.get("/score", params=SCORE)).status_code == 200
        clock.jump(0.999)
        answer = await client.get("/score", params=SCORE)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        problem_of(answer)

    async def test_rejected_calls_do_not_delay_the_next_one(self, client, clock):
        await client.get("/score", params=SCORE)
        clock.jump(0.5)
        await client.get("/score", params=SCORE)
        clock.jump(0.5)
        assert (await client.get("/score", params=SCORE)).status_code == 200

    async def test_a_cpf_has_the_same_score_with_and_without_punctuation(self, client, clock):
        first = (await client.get("/score?cpf=123.456.789-09")).json()
        clock.jump(1)
        second = (await client.get("/score?cpf=12345678909")).json()
        assert first == second
        assert 0 <= first["score"] <= 1000

    @pytest.mark.parametrize("cpf", ["", "1234567890", "123456789012", "1234567890x", "١٢٣٤٥٦٧٨٩٠١"])
    async def test_an_invalid_cpf_is_rejected_and_does_not_delay_others(self, client, cpf):
        answer = await client.get("/score", params={"cpf": cpf})
        assert answer.status_code == 422
        assert problem_of(answer)["detail"] == "cpf: must have 11 digits, such as 123.456.789-09"
        assert (await client.get("/score", params=SCORE)).status_code == 200


class TestControl:
    async def test_faults_are_changed_field_by_field(self, client):
        await client.put("/faults", json={"failure_rate": 0.25})
        answer = await client.put("/faults", json={"pattern": "SF", "kind": "cut"})
        expected = {"failure_rate": 0.25, "latency_ms": 0, "status": 503, "pattern": "SF", "kind": "cut"}
        assert answer.json() == expected
        assert (await client.get("/faults")).json() == expected

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b'{"failure_rate": 1.5}', "failure_rate"),
            (b'{"failure_rate": NaN}', "failure_rate"),
            (b'{"latency_ms": -1}', "latency_ms"),
            (b'{"status": 200}', "status"),
            (b'{"pattern": "SUCCESS"}', "pattern"),
            (b'{"kind": "explode"}', "kind"),
            (b'{"failrate": 1}', "failrate"),
            (b"[]", "body"),
        ],
    )
    async def test_a_rejected_change_names_the_field_and_changes_nothing(self, client, body, field):
        answer = await client.put("/faults", content=body)
        assert answer.status_code == 422
        assert problem_of(answer)["detail"].startswith(f"{field}: ")
        assert Faults(**(await client.get("/faults")).json()) == Faults()

    async def test_a_change_that_is_not_json_is_rejected(self, client):
        answer = await client.put("/faults", content=b"{")
        assert answer.status_code == 400
        problem_of(answer)

    async def test_health_is_healthy(self, client):
        assert (await client.get("/health")).json() == {"status": "healthy"}


class TestProblems:
    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/get", 405)])
    async def test_errors_of_the_router_are_problem_documents_too(self, client, method, path, status):
        answer = await client.request(method, path)
        assert answer.status_code == status
        problem_of(answer)

    async def test_an_unexpected_error_is_a_problem_document_too(self, provider):
        @provider.get("/broken")
        async def broken():
            raise RuntimeError("a secret")

        async with client_of(provider, raise_app_exceptions=False) as client:
            answer = await client.get("/broken")
        assert answer.status_code == 500
        assert "secret" not in problem_of(answer)["detail"]


def has_example(content, document) -> bool:
    """Return whether this media type of a response, or its model, has an example."""
    model = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return "example" in content or "examples" in document["components"]["schemas"].get(model, {})


@pytest.mark.parametrize(
    "path",
    [
        "/kv",
        "/kv/metric-types/cpu_usage",
        "/get",
        "/delay/0",
        "/status/200",
        "/faults",
        "/health",
        "/stats",
        "/docs",
    ],
)
async def test_every_get_has_its_head(client, path):
    """In the past, only the pages supported HEAD."""
    head, got = await client.head(path), await client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers.keys() == got.headers.keys()


class TestDocumentation:
    @pytest.mark.parametrize("page", ["/docs", "/redoc"])
    async def test_the_pages_need_no_internet(self, client, page):
        text = (await client.get(page)).text
        assets = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert assets
        for asset in assets:
            assert asset.startswith("/")
            assert (await client.get(asset)).status_code == 200

    async def test_every_endpoint_has_a_summary_and_an_example(self, client):
        document = (await client.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"], (method, path)
                for status, response in operation["responses"].items():
                    for content in response.get("content", {}).values():
                        assert has_example(content, document), (method, path, status)
