"""The fragments of the OpenAPI document, and the document of all routes."""

import orjson
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field

from src.api import openapi
from src.api.access.admin_access import RequireAdmin
from src.api.errors import Problem
from src.api.models.metrics import METRIC_IN, MetricIn
from src.api.openapi import headers, json_batch_body, json_body, problems
from src.api.routes import (
    admin,
    circuit_breaker,
    events,
    health,
    index,
    lab,
    overview,
    proxy,
    telemetry,
)
from src.api.routes.metrics import ingest, lifecycle, reads, series

ROUTERS = (
    admin.router, circuit_breaker.router, events.router, health.router, index.router, ingest.router,
    lab.router, lab.runs, lifecycle.router, reads.router, overview.router, series.router, proxy.router,
    telemetry.router,
)  # fmt: skip
QUOTA_HEADERS = {
    "RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
}  # fmt: skip


@pytest.fixture(scope="module")
def document():
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    return openapi.complete(app.openapi())


def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def named_headers(answer):
    return set(answer.get("headers", {}))


def problem_codes(operation):
    return {
        code
        for answer in operation["responses"].values()
        for code in answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }


def test_problems_of_one_status_are_documented_with_their_messages():
    busy = Problem(429, "LAB_BUSY", "Come back later")
    answers = problems("RATE_LIMIT_EXCEEDED", busy, "VALIDATION_ERROR")
    assert answers.keys() == {429, 422}
    examples = answers[429]["content"]["application/problem+json"]["examples"]
    assert examples["LAB_BUSY"]["value"]["detail"] == "Come back later"
    assert examples["RATE_LIMIT_EXCEEDED"]["value"]["title"] == "Too Many Requests"
    invalid = answers[422]["content"]["application/problem+json"]["examples"]["VALIDATION_ERROR"]["value"]
    assert invalid["title"] == "Unprocessable Content"
    assert invalid["errors"] == [{"field": "value", "message": "Input should be a valid number"}]


def test_fragments_of_two_routes_share_no_mutable_value():
    first, second = problems("BAD_REQUEST"), problems("BAD_REQUEST")
    first[400]["content"]["application/problem+json"]["examples"].clear()
    assert second[400]["content"]["application/problem+json"]["examples"]


def test_the_documentation_of_a_query_matches_its_model():
    limit, to, again = openapi.query_parameters(Query, headers=["If-None-Match"])["parameters"]
    assert limit == {
        "name": "limit",
        "in": "query",
        "required": True,
        "description": "How many",
        "schema": {"type": "integer", "minimum": 1, "title": "Limit"},
    }
    assert (to["name"], to["required"]) == ("to", False)
    assert (again["name"], again["in"]) == ("If-None-Match", "header")


class Query(BaseModel):
    limit: int = Field(ge=1, description="How many")
    to_: str | None = Field(None, alias="to", description="The end")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GET /api/metrics/summary", {"type": True, "period": False, "label": False, "group_by": False}),
        ("GET /api/metrics/list", {"type": False, "limit": False, "cursor": False, "label": False}),
        ("GET /api/metrics/labels", {"type": True}),
        (
            "GET /api/metrics/series",
            {"type": True, "from": False, "to": False, "step": False, "label": False, "group_by": False},
        ),
    ],
)
def test_queries_that_a_route_parses_itself_can_be_sent_from_the_pages(document, name, expected):
    parameters = operations(document)[name]["parameters"]
    sent = {item["name"]: item["required"] for item in parameters if item["in"] == "query"}
    assert sent == expected
    assert all(item["description"] and item["schema"] for item in parameters)


def test_an_unknown_code_or_request_header_is_rejected_at_once():
    with pytest.raises(KeyError):
        problems("NO_SUCH_CODE")
    with pytest.raises(KeyError):
        openapi.request_headers("No-Such-Header")


def test_the_examples_of_a_body_are_valid():
    one = json_body(MetricIn)["requestBody"]["content"]["application/json"]["example"]
    assert METRIC_IN.validate_python(one)
    many = json_batch_body(MetricIn, "application/x-ndjson")["requestBody"]["content"]
    array = many["application/json"]["example"]
    lines = many["application/x-ndjson"]["example"].splitlines()
    assert len(array) == len(lines) > 1
    assert [METRIC_IN.validate_json(line) for line in lines] == [
        METRIC_IN.validate_python(item) for item in array
    ]
    assert orjson.loads(lines[0]) == one


def test_the_document_has_no_members_of_openapi_3_2(document):
    assert document["openapi"].startswith("3.1.")
    assert b'"itemSchema"' not in orjson.dumps(document)


def test_every_reference_resolves(document):
    def references(part):
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    for reference in references(document):
        target = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_every_route_documents_errors_and_the_request_id(document):
    for name, operation in operations(document).items():
        assert "INTERNAL_ERROR" in problem_codes(operation), name
        for status, answer in operation["responses"].items():
            assert "X-Request-ID" in named_headers(answer), (name, status)
            assert ("Retry-After" in named_headers(answer)) == (status in {"429", "503"}), (name, status)


def test_only_limited_routes_document_the_quota_headers(document):
    limited = set()
    for name, operation in operations(document).items():
        shown = [named_headers(answer) & QUOTA_HEADERS for answer in operation["responses"].values()]
        assert all(some == QUOTA_HEADERS for some in shown) or not any(shown), name
        if any(shown):
            limited.add(name)
    assert limited == {
        "POST /api/metrics",
        "POST /api/metrics/batch",
        "GET /api/metrics/summary",
        "GET /api/metrics/list",
        "GET /api/metrics/types",
        "GET /api/metrics/labels",
        "GET /api/metrics/series",
        "GET /invoke",
        "GET /invoke_delay",
        "GET /invoke_error",
        "GET /logs",
        "GET /api/events",
    }


def test_only_admin_routes_document_the_key(document):
    scheme = document["components"]["securitySchemes"]["AdminKey"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-API-Key")
    guarded = {
        f"{method} {route.path}"
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
        if RequireAdmin in route.dependencies
    }
    assert "POST /force_open" in guarded
    for name, operation in operations(document).items():
        assert (name in guarded) == (operation.get("security") == [{"AdminKey": []}]), name
        assert (name in guarded) == (problem_codes(operation) >= {"UNAUTHORIZED", "FORBIDDEN"}), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POST /api/metrics", {"Idempotency-Key", "Content-Encoding"}),
        ("POST /api/metrics/batch", {"Idempotency-Key", "Content-Encoding"}),
        ("PUT /api/admin/external-service/failure-rate", {"Content-Encoding"}),
        ("GET /api/metrics/summary", {"If-None-Match", "Cache-Control"}),
        ("GET /proxy/{path}", {"client-id", "Cache-Control"}),
        ("HEAD /proxy/{path}", {"client-id", "Cache-Control"}),
        ("PUT /api/admin/proxy/policy", {"Content-Encoding"}),
        ("PUT /api/admin/retention", {"Content-Encoding"}),
    ],
)
def test_headers_that_a_route_reads_can_be_sent_from_the_pages(document, name, expected):
    parameters = operations(document)[name]["parameters"]
    sent = {item["name"]: item for item in parameters if item["in"] == "header"}
    assert sent.keys() == expected
    assert all(item["description"] and item["schema"] and not item.get("required") for item in sent.values())


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("POST /api/metrics", "201", {"Idempotency-Replayed"}),
        ("POST /api/metrics/batch", "207", {"Idempotency-Replayed"}),
        ("GET /api/metrics/summary", "200", {"X-Cache", "Age", "ETag", "Cache-Control"}),
        ("GET /api/metrics/summary", "304", {"X-Cache", "Age", "ETag", "Cache-Control"}),
        ("GET /api/metrics/list", "200", {"Link"}),
        ("GET /proxy/{path}", "200", {"X-Cache", "X-Queue-Wait-Ms", "Age"}),
    ],
)
def test_each_response_documents_its_own_headers(document, name, status, expected):
    assert named_headers(operations(document)[name]["responses"][status]) >= expected


def test_the_documents_reference_a_header_by_name():
    assert headers("Age") == {"headers": {"Age": {"$ref": "#/components/headers/Age"}}}


def test_503_is_documented_for_each_route_that_can_answer_it(document):
    reasons = {"REDIS_UNAVAILABLE", "CIRCUIT_OPEN", "EXTERNAL_SERVICE_UNAVAILABLE"}
    documented = {
        name: problem_codes(operation) & reasons for name, operation in operations(document).items()
    }
    assert {name: codes for name, codes in documented.items() if codes} == {
        "POST /api/metrics": {"REDIS_UNAVAILABLE"},
        "POST /api/metrics/batch": {"REDIS_UNAVAILABLE"},
        "GET /api/metrics/summary": reasons,
        "GET /api/metrics/list": {"REDIS_UNAVAILABLE"},
        "GET /api/metrics/types": {"REDIS_UNAVAILABLE"},
        "GET /api/metrics/labels": {"REDIS_UNAVAILABLE"},
        "GET /api/metrics/series": {"REDIS_UNAVAILABLE"},
        "GET /api/admin/external-service/failure-rate": {"EXTERNAL_SERVICE_UNAVAILABLE"},
        "PUT /api/admin/external-service/failure-rate": {"REDIS_UNAVAILABLE", "EXTERNAL_SERVICE_UNAVAILABLE"},
        "GET /api/admin/external-service/faults": {"EXTERNAL_SERVICE_UNAVAILABLE"},
        "PUT /api/admin/external-service/faults": {"REDIS_UNAVAILABLE", "EXTERNAL_SERVICE_UNAVAILABLE"},
        "POST /stress": {"REDIS_UNAVAILABLE"},
        "GET /logs": {"REDIS_UNAVAILABLE"},
        "GET /proxy/{path}": {"CIRCUIT_OPEN", "EXTERNAL_SERVICE_UNAVAILABLE"},
        "HEAD /proxy/{path}": {"CIRCUIT_OPEN", "EXTERNAL_SERVICE_UNAVAILABLE"},
        "PUT /api/admin/proxy/policy": {"REDIS_UNAVAILABLE"},
        "DELETE /api/metrics": {"REDIS_UNAVAILABLE"},
        "GET /api/admin/retention": {"REDIS_UNAVAILABLE"},
        "PUT /api/admin/retention": {"REDIS_UNAVAILABLE"},
        "DELETE /api/admin/retention": {"REDIS_UNAVAILABLE"},
    }
