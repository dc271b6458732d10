"""The middleware of every request, of hot routes and of FastAPI's routes."""

from types import SimpleNamespace

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from src.api import request_middleware
from src.api.errors import Problem, ProblemError
from src.api.hot_routes import HotRoute, hot_route_table
from src.api.request_context import RequestContext
from src.api.request_middleware import RequestMiddleware
from src.observation.request_record import RequestRecord
from src.resilience.http.client_address import ClientAddress
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota
from src.services.access.admission import Admission


async def answer(request: Request) -> Response:
    match await request.body():
        case b"bad":
            raise ProblemError(Problem(400, "BAD_REQUEST", "bad"))
        case b"broken":
            raise KeyError("secret detail")
    return PlainTextResponse("points", headers={"X-Answer": "yes"})


async def fail_during_body(_request: Request) -> Response:
    async def broken():
        yield b"po"
        raise KeyError("secret detail")

    return StreamingResponse(broken())


@pytest.fixture
def state(clock, listener):
    """Return the state that the middleware reads, with an admission of one request per minute."""
    limiter = memory_rate_limiter("sliding_window_log", Quota(1, 60), clock)
    return {
        "clock": clock,
        "client_address": ClientAddress([]),
        "read_admission": Admission("read", Quota(1, 60), limiter, listener),
    }


@pytest.fixture
def records():
    return []


@pytest.fixture
def logged(monkeypatch):
    lines = []
    log = SimpleNamespace(exception=lambda event, **fields: lines.append((event, fields)))
    monkeypatch.setattr(request_middleware, "_log", log)
    return lines


@pytest.fixture
def serve(clock, records, state):
    """Return a function that creates a client with a given peer address."""
    router = Router([Route("/framework", answer, methods=["POST"]), Route("/broken", fail_during_body)])
    hot_routes = hot_route_table(
        [HotRoute("POST", "/hot", answer), HotRoute("GET", "/limited", answer, "read_admission")]
    )
    app = RequestMiddleware(router, RequestContext(clock, records.append), hot_routes)

    async def with_state(scope, receive, send):
        await app({**scope, "state": state, "app": app}, receive, send)

    def serve(peer="192.0.2.1", *, cut_raises=False):
        transport = httpx.ASGITransport(with_state, client=(peer, 50000), raise_app_exceptions=cut_raises)
        return httpx.AsyncClient(transport=transport, base_url="http://api")

    return serve


@pytest.fixture
async def client(serve):
    async with serve() as client:
        yield client


either_way = pytest.mark.parametrize("path", ["/hot", "/framework"])


@either_way
async def test_a_response_has_its_headers_and_the_request_id_and_is_recorded(client, records, path):
    got = await client.post(path, headers={"X-Request-ID": "abc"})
    assert (got.text, got.headers["x-answer"], got.headers["x-request-id"]) == ("points", "yes", "abc")
    assert records == [RequestRecord("POST", path, path, 200, 0.0, {"request_id": "abc"})]


@either_way
async def test_an_expected_error_is_a_problem_document(client, records, path):
    got = await client.post(path, content=b"bad", headers={"X-Request-ID": "abc"})
    problem = got.json()
    assert (got.status_code, problem["code"], problem["request_id"]) == (400, "BAD_REQUEST", "abc")
    assert got.headers["content-type"] == "application/problem+json"
    assert got.headers["x-request-id"] == "abc"
    assert records == [RequestRecord("POST", path, path, 400, 0.0, {"request_id": "abc"})]


@either_way
async def test_an_unexpected_error_is_logged_and_reveals_nothing(client, records, path, logged):
    got = await client.post(path, content=b"broken", headers={"X-Request-ID": "abc"})
    assert (got.status_code, got.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in got.text
    assert records == [RequestRecord("POST", path, path, 500, 0.0, {"request_id": "abc"})]
    assert logged == [("unexpected_error", {"method": "POST", "path": path})]


async def test_the_errors_of_the_framework_are_rendered_like_all_others(client, records):
    got = await client.get("/nothing")
    assert (got.status_code, got.json()["code"]) == (404, "NOT_FOUND")
    got = await client.delete("/broken")
    assert (got.status_code, got.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert got.headers["allow"] == "GET, HEAD"
    assert [(record.route, record.status) for record in records] == [("unmatched", 404), ("/broken", 405)]


async def test_an_incomplete_response_is_logged_and_cut(serve, records, logged):
    async with serve(cut_raises=True) as client:
        with pytest.raises(KeyError):  # a server then closes the connection
            await client.get("/broken")
    assert [record.status for record in records] == [200]
    assert logged == [("unexpected_error", {"method": "GET", "path": "/broken"})]


async def test_a_hot_route_answers_a_head_without_the_body(client, records):
    got = await client.head("/limited")
    assert (got.status_code, got.content) == (200, b"")
    assert (got.headers["content-length"], got.headers["x-answer"]) == ("6", "yes")
    assert [(record.method, record.route) for record in records] == [("HEAD", "/limited")]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("peer", "is_served"), [("192.0.2.1", False), ("192.0.2.2", True)])
async def test_a_client_known_to_be_over_its_quota_does_not_reach_the_handler(
    serve, records, state, method, peer, is_served
):
    await state["read_admission"].decide("192.0.2.1")
    async with serve(peer) as client:
        got = await client.request(method, "/limited", headers={"X-Request-ID": "abc"})
    assert got.status_code == (200 if is_served else 429)
    assert records == [
        RequestRecord(method, "/limited", "/limited", got.status_code, 0.0, {"request_id": "abc"}),
    ]
    if not is_served:
        assert got.headers["ratelimit"] == '"read";r=0;t=60'
        assert got.headers["retry-after"] == "60"
        assert method == "HEAD" or got.json()["code"] == "RATE_LIMIT_EXCEEDED"
