import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from src.api.errors import Problem, ProblemError
from src.api.middleware.fast_lane import FastLaneMiddleware, Lane
from src.api.middleware.request_context import RequestContext


async def ordinary(scope, receive, send):
    await PlainTextResponse("the ordinary way")(scope, receive, send)


def serve(request: Request):
    return answer(request) if request.scope["query_string"] == b"plain" else None


async def answer(request: Request) -> Response:
    if await request.body() == b"bad":
        raise ProblemError(Problem(400, "BAD_REQUEST", "bad"))
    if await request.body() == b"broken":
        raise KeyError("nobody foresaw it")
    return PlainTextResponse("the fast lane")


@pytest.fixture
def scopes():
    return []


@pytest.fixture
def observed():
    return []


@pytest.fixture
async def client(clock, scopes, observed):
    context = RequestContext(clock, lambda request: observed.append(request[:5]))
    app = FastLaneMiddleware(ordinary, context, [Lane("POST", "/points", serve)])

    async def remember(scope, receive, send):
        scopes.append(scope)
        await app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(remember), base_url="http://api") as client:
        yield client


async def test_a_plain_request_takes_the_lane_and_is_counted_under_its_path(client, observed):
    answer = await client.post("/points?plain", headers={"X-Request-ID": "abc"})
    assert answer.text == "the fast lane"
    assert answer.headers["x-request-id"] == "abc"
    assert observed == [("POST", "/points", "/points", 200, 0.0)]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/points?other"), ("GET", "/points?plain"), ("POST", "/points/?plain")]
)
async def test_everything_else_goes_the_ordinary_way(client, scopes, observed, method, path):
    assert (await client.request(method, path)).text == "the ordinary way"
    assert "route" not in scopes[0]
    assert observed == [], "the ordinary way has its own observers"


async def test_a_foreseen_error_is_a_problem_document(client, observed):
    answer = await client.post("/points?plain", content=b"bad", headers={"X-Request-ID": "abc"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["request_id"]) == (400, "BAD_REQUEST", "abc")
    assert answer.headers["content-type"] == "application/problem+json"
    assert observed == [("POST", "/points", "/points", 400, 0.0)]


async def test_an_error_nobody_foresaw_tells_nothing(client, observed):
    answer = await client.post("/points?plain", content=b"broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "nobody foresaw it" not in answer.text
    assert observed == [("POST", "/points", "/points", 500, 0.0)]
