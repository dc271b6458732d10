"""Every JSON answer has exactly the members of the OpenAPI document, in the same order."""

import pytest

from tests.support.api import CALM, metric, running_api

STATED_ELSEWHERE = {("GET", "/health", "503"), ("GET", "/health/ready", "503"), ("POST", "/stress", "200")}
"""Answers that a test cannot easily cause; the model that documents them also renders them."""

KEY = {"Idempotency-Key": "again"}
FAULTS = "/api/admin/external-service/faults"
FAILURE_RATE = "/api/admin/external-service/failure-rate"
REQUESTS = [
    ("POST", "/api/metrics", {"json": metric()}),
    ("POST", "/api/metrics", {"json": metric() | {"labels": {"host": "a"}}}),
    ("POST", "/api/metrics/batch", {"json": [metric()]}),
    ("POST", "/api/metrics/batch", {"json": [metric(), {}]}),
    ("POST", "/api/metrics/batch", {"json": [{}, {"value": "x"}]}),
    ("POST", "/api/metrics/batch", {"json": []}),
    ("POST", "/api/metrics", {"json": {}}),
    ("POST", "/api/metrics", {"content": b"{"}),
    ("POST", "/api/metrics", {"content": b"x" * 70_000}),
    ("POST", "/api/metrics", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    ("GET", "/api/metrics/summary?type=cpu", {}),
    ("GET", "/api/metrics/summary?type=cpu_usage&period=hourly", {}),
    ("GET", "/api/metrics/summary?type=nothing", {}),
    ("GET", "/api/metrics/summary", {}),
    ("GET", "/api/metrics/list", {}),
    ("GET", "/api/metrics/list?limit=0", {}),
    ("GET", "/api/metrics/list?label=host:a", {}),
    ("GET", "/api/metrics/types", {}),
    ("GET", "/api/metrics/labels?type=cpu", {}),
    ("GET", "/api/metrics/labels", {}),
    ("GET", "/api/metrics/summary?type=cpu&label=host:a", {}),
    ("GET", "/api/metrics/summary?type=cpu&group_by=host", {}),
    ("GET", "/api/metrics/series?type=cpu&step=600&group_by=host", {}),
    ("GET", "/api/metrics/series?type=cpu&step=600", {}),
    ("GET", "/api/metrics/series?type=cpu&step=0", {}),
    ("DELETE", "/api/metrics?type=nothing", {}),
    ("DELETE", "/api/metrics", {}),
    ("GET", "/api/admin/retention", {}),
    ("PUT", "/api/admin/retention", {"json": {"pattern": "nothing", "seconds": 60}}),
    ("DELETE", "/api/admin/retention?pattern=nothing", {}),
    ("DELETE", "/api/admin/retention", {}),
    ("GET", "/api/overview", {}),
    ("GET", "/api/circuit-breaker/status", {}),
    ("GET", "/api/proxy/status", {}),
    ("GET", "/api/admin/proxy/policy", {}),
    ("PUT", "/api/admin/proxy/policy", {"json": {"policy": "fifo"}}),
    ("GET", FAILURE_RATE, {}),
    ("PUT", FAILURE_RATE, {"json": {"failure_rate": 0}}),
    ("GET", FAULTS, {}),
    ("PUT", FAULTS, {"json": {"latency_ms": 0}}),
    ("POST", "/api/admin/circuit-breaker/open", {}),
    ("POST", "/api/admin/circuit-breaker/close", {}),
    ("POST", "/force_open", {}),
    ("POST", "/reset_circuit", {}),
    ("GET", "/circuit_state", {}),
    ("GET", "/invoke?count=2", {}),
    ("GET", "/invoke_delay", {}),
    ("GET", "/invoke_error", {}),
    ("GET", "/health", {}),
    ("GET", "/health/live", {}),
    ("GET", "/health/ready", {}),
    ("GET", "/", {}),
]


class Documents:
    """The OpenAPI document, with which answers are compared."""

    def __init__(self, document):
        self._document = document
        self.answers = {
            (method.upper(), path, status): media_type
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            for status, answer in operation["responses"].items()
            for media_type in answer.get("content", {})
            if media_type == "application/json"
        }

    def differences(self, answer, path):
        """Return the differences between `answer` and the document."""
        operation = self._document["paths"][path][answer.request.method.lower()]
        content = operation["responses"][str(answer.status_code)]["content"]
        return list(self._differences(content[answer.headers["content-type"]]["schema"], answer.json(), "$"))

    def _differences(self, schema, value, where):
        if "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            found = [list(self._differences(some, value, where)) for some in schema["anyOf"]]
            yield from min(found, key=len)
        elif "additionalProperties" in schema:
            for name, item in value.items():
                yield from self._differences(schema["additionalProperties"], item, f"{where}.{name}")
        elif schema.get("type") == "object":
            yield from self._members(schema, value, where)
        elif schema.get("type") == "array" and isinstance(value, list):
            for number, item in enumerate(value):
                yield from self._differences(schema["items"], item, f"{where}[{number}]")
        elif not has_type(value, schema):
            yield f"{where} is {value!r}, and not {schema}"

    def _members(self, schema, value, where):
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        properties = schema["properties"]
        expected = [
            name for name in properties if name in value or name in schema.get("required", properties)
        ]
        if list(value) != expected:
            yield f"{where} has {list(value)}, and not {expected}"
        for name in value.keys() & properties.keys():
            yield from self._differences(properties[name], value[name], f"{where}.{name}")


KINDS = {
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def has_type(value, schema):
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kind = schema.get("type")
    return kind is None or (isinstance(value, KINDS[kind]) and (kind == "boolean" or value is not True))


@pytest.fixture
async def documents(api):
    return Documents((await api.get("/openapi.json")).json())


async def test_every_answer_matches_the_openapi_document(api, documents):
    await api.post("/api/metrics/batch", json=[metric(value, ago=value) for value in range(1, 5)])
    seen = set()
    for method, address, options in REQUESTS:
        answer = await api.request(method, address, **options)
        path = address.partition("?")[0]
        assert documents.differences(answer, path) == [], (method, address, answer.status_code)
        seen.add((method, path, str(answer.status_code)))
    assert documents.answers.keys() - seen == STATED_ELSEWHERE


async def test_a_rejection_matches_the_openapi_document(redis_server):
    async with running_api(
        redis_server.url, rate_limit_read_requests=1, rate_limit_requests=1, **CALM
    ) as api:
        documents = Documents((await api.get("/openapi.json")).json())
        for method, address in (("GET", "/api/metrics/summary?type=cpu"), ("POST", "/api/metrics")):
            for _ in range(3):
                answer = await api.request(method, address, json=metric())
            assert answer.status_code == 429
            assert documents.differences(answer, address.partition("?")[0]) == []


async def test_the_state_of_an_open_breaker_matches_the_openapi_document(api, documents):
    await api.post("/force_open")
    for path in ("/api/circuit-breaker/status", "/circuit_state", "/api/overview"):
        assert documents.differences(await api.get(path), path) == []
    answer = await api.get("/api/metrics/summary?type=cpu")
    assert answer.status_code == 503
    assert documents.differences(answer, "/api/metrics/summary") == []


@pytest.mark.parametrize(
    ("schema", "value", "is_right"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {"a": 1}, True),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {}, False),
        ({"type": "object", "properties": {"a": {}}, "required": []}, {}, True),
        ({"type": "object", "properties": {"a": {}}}, {"a": 1, "b": 2}, False),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, {"b": 1, "a": 2}, False),
        ({"type": "array", "items": {"type": "integer"}}, [1, "x"], False),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, None, True),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "x", False),
        ({"type": "integer"}, True, False),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": "x", "b": "y"}, True),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": 1}, False),
        ({"type": "array", "items": {}}, {}, False),
        ({"enum": ["a", "b"]}, "c", False),
    ],
)
def test_the_comparison_finds_differences(schema, value, is_right):
    documents = Documents({"paths": {}, "components": {"schemas": {}}})
    assert (list(documents._differences(schema, value, "$")) == []) == is_right
