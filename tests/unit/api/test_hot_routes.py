import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from src.api.client_address import ClientAddress
from src.api.errors import Problem, ProblemError
from src.api.hot_routes import HotRoute, HotRoutesMiddleware
from src.api.request_context import RequestContext
from src.observation.request_record import RequestRecord
from src.resilience.memory_rate_limiter import memory_rate_limiter
from src.resilience.rate_limiter import Quota
from src.services.access.admission import Admission


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
    context = RequestContext(clock, observed.append)
    app = HotRoutesMiddleware(ordinary, context, [HotRoute("POST", "/points", serve)])

    async def remember(scope, receive, send):
        scopes.append(scope)
        await app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(remember), base_url="http://api") as client:
        yield client


async def test_a_plain_request_takes_the_lane_and_is_counted_under_its_path(client, observed):
    answer = await client.post("/points?plain", headers={"X-Request-ID": "abc"})
    assert answer.text == "the fast lane"
    assert answer.headers["x-request-id"] == "abc"
    assert observed == [RequestRecord("POST", "/points", "/points", 200, 0.0, {"request_id": "abc"})]


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
    assert observed == [RequestRecord("POST", "/points", "/points", 400, 0.0, {"request_id": "abc"})]


async def test_an_error_nobody_foresaw_tells_nothing(client, observed):
    answer = await client.post("/points?plain", content=b"broken", headers={"X-Request-ID": "abc"})
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "nobody foresaw it" not in answer.text
    assert observed == [RequestRecord("POST", "/points", "/points", 500, 0.0, {"request_id": "abc"})]


async def test_what_goes_wrong_before_a_lane_has_begun_goes_the_ordinary_way(clock, observed, caplog):
    def fail(request):
        raise KeyError("nobody foresaw it")

    app = HotRoutesMiddleware(
        ordinary, RequestContext(clock, observed.append), [HotRoute("GET", "/points", fail)]
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        assert (await client.get("/points")).text == "the ordinary way"
    assert [record.getMessage() for record in caplog.records] == ["fast_lane_failed"]


@pytest.fixture
def state(clock, listener):
    """What the entrance asks: an admission of one request a minute."""
    quota = Quota(1, 60)
    limiter = memory_rate_limiter("sliding_window_log", quota, clock)
    return {
        "clock": clock,
        "client_address": ClientAddress([]),
        "read_admission": Admission("read", quota, limiter, listener),
    }


@pytest.mark.parametrize(("peer", "served"), [("192.0.2.1", False), ("192.0.2.2", True)])
async def test_who_is_known_to_be_over_the_quota_does_not_get_as_far_as_the_lane(
    clock, observed, state, peer, served
):
    await state["read_admission"].decide("192.0.2.1")
    lane = HotRoute("POST", "/points", answer, "read_admission")
    app = HotRoutesMiddleware(ordinary, RequestContext(clock, observed.append), [lane])

    async def with_state(scope, receive, send):
        await app({**scope, "state": state}, receive, send)

    transport = httpx.ASGITransport(with_state, client=(peer, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        got = await client.post("/points", headers={"X-Request-ID": "abc"})
    assert (got.text == "the fast lane") == served
    assert got.status_code == (200 if served else 429)
    assert observed == [
        RequestRecord("POST", "/points", "/points", got.status_code, 0.0, {"request_id": "abc"}),
    ]
    if not served:
        assert got.headers["ratelimit"] == '"read";r=0;t=60'
        assert got.headers["retry-after"] == "60"
