import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from src.api.errors import Problem, ProblemError
from src.api.middleware.fast_lane import FastLaneMiddleware, Lane
from tests.support.clock import FakeClock


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
async def client(scopes):
    app = FastLaneMiddleware(ordinary, [Lane("POST", "/points", serve)])

    async def with_state(scope, receive, send):
        scopes.append(scope)
        scope["state"] = {"clock": FakeClock()}
        scope["request_id"] = "abc"
        await app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://api") as client:
        yield client


async def test_a_plain_request_takes_the_lane_and_is_counted_under_its_path(client, scopes):
    assert (await client.post("/points?plain")).text == "the fast lane"
    assert scopes[0]["route"].path == "/points"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/points?other"), ("GET", "/points?plain"), ("POST", "/points/?plain")]
)
async def test_everything_else_goes_the_ordinary_way(client, scopes, method, path):
    assert (await client.request(method, path)).text == "the ordinary way"
    assert "route" not in scopes[0]


async def test_a_foreseen_error_is_a_problem_document(client):
    answer = await client.post("/points?plain", content=b"bad")
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (
        400,
        "BAD_REQUEST",
        "abc",
    )
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_error_nobody_foresaw_goes_on(client):
    with pytest.raises(KeyError):
        await client.post("/points?plain", content=b"broken")
