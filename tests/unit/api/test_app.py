"""The app around the routes."""

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from src.api.app import App
from src.api.hot_routes import HotRoute
from src.api.request_context import RequestContext


async def hot_route_request(_request: Request) -> Response:
    return PlainTextResponse("hot_route_request")


async def broken(_request: Request) -> Response:
    raise KeyError("secret")


@pytest.fixture
def spans():
    return InMemorySpanExporter()


@pytest.fixture(params=[False, True], ids=["untraced", "traced"])
def app(request, clock, spans):
    telemetry = {"tracing": request.param, "metrics": False, "logs": False, "operation_spans": False}
    if request.param:
        telemetry["tracer_provider"] = TracerProvider()
        telemetry["tracer_provider"].add_span_processor(SimpleSpanProcessor(spans))
    context = RequestContext(clock, lambda _record: None, is_traced=request.param)
    routes = [HotRoute("GET", "/hot", hot_route_request), HotRoute("GET", "/broken", broken)]
    app = App(context, routes, lifespan=None, telemetry=telemetry)

    @app.get("/things/{number}")
    async def read_item(number: int) -> int:
        return number

    app.is_traced_here = request.param
    return app


async def test_every_request_takes_the_same_path_with_and_without_tracing(app, spans):
    """In the past, tracing disabled the hot routes."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answers = [await client.get(path) for path in ("/hot", "/broken", "/things/7", "/things/x", "/no")]
    assert [answer.status_code for answer in answers] == [200, 500, 200, 422, 404]
    assert answers[0].text == "hot_route_request", "the framework has no such route"
    assert all("x-request-id" in answer.headers for answer in answers)
    assert [answer.json()["code"] for answer in answers if answer.status_code >= 400] == [
        "INTERNAL_ERROR",
        "VALIDATION_ERROR",
        "NOT_FOUND",
    ]
    named = [
        (span.name, span.attributes.get("http.route"), span.attributes["http.response.status_code"])
        for span in spans.get_finished_spans()
    ]
    expected = [
        ("GET /hot", "/hot", 200),
        ("GET /broken", "/broken", 500),
        ("GET /things/{number}", "/things/{number}", 200),
        ("GET /things/{number}", "/things/{number}", 422),
        ("GET", None, 404),
    ]
    assert named == (expected if app.is_traced_here else [])


async def test_the_documents_are_built_once_and_complete(app):
    document = app.openapi()
    assert document is app.openapi()
    assert "INTERNAL_ERROR" in str(document["paths"]["/things/{number}"]["get"]["responses"]["500"])


async def test_no_middleware_of_starlette_is_used(app):
    """Starlette's middleware would answer an error in plain text before the service's own."""
    assert app.build_middleware_stack() is app.build_middleware_stack()
    assert app.user_middleware == []


@pytest.mark.parametrize("path", ["/hot", "/things/7"])
async def test_a_websocket_is_rejected(app, path):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    assert sent == ["websocket.close"]
