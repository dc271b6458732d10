"""A FastAPI application with the library's limit, handlers and lifespan."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Response

from src.resilience import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    MemoryPaceStore,
    PacedQueue,
    PacedQueueOptions,
    QueueFullError,
    Quota,
    RateLimitedError,
    RejectedError,
    ResilienceError,
    memory_rate_limiter,
)
from src.resilience.errors import QueueClosedError, QueueTimeoutError
from src.resilience.fastapi import (
    RequestLimit,
    add_resilience,
    client_address,
    client_address_behind,
    closing_lifespan,
)
from src.resilience.rate_limiter import Decision


def client_of(app, address="203.0.113.7", port=50_000):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, port))
    return httpx.AsyncClient(transport=transport, base_url="http://shop.example", trust_env=False)


def limit_of(clock, limit=2, name="orders", **options):
    limiter = memory_rate_limiter("sliding_window_log", Quota(limit, 60), clock)
    return RequestLimit(limiter, name=name, clock=clock, **options)


def limited_app(*limits, **options):
    app = FastAPI(dependencies=[Depends(limit) for limit in limits])
    add_resilience(app, **options)

    @app.get("/orders")
    async def orders():
        return []

    @app.get("/direct")
    async def direct():
        return Response("as it is")

    return app


# ---------------------------------------------------------------- the limit


async def test_the_headers_describe_the_quota_that_limits_most(clock):
    limiter = memory_rate_limiter("sliding_window_log", (Quota(1, 60), Quota(2, 3600)), clock)
    limit = RequestLimit(limiter, name="orders", clock=clock)
    policies = []
    async with client_of(limited_app(limit)) as http:
        for _ in range(3):
            answer = await http.get("/orders")
            policies.append((answer.status_code, answer.headers["RateLimit-Policy"]))
            clock.jump(60)
    day = '"orders";q=2;w=3600'
    assert policies == [(200, '"orders";q=1;w=60'), (200, day), (429, day)]


async def test_of_several_quotas_the_headers_have_the_remaining_units_and_the_time_of_the_same_one(clock):
    limiter = memory_rate_limiter("sliding_window_log", (Quota(1, 60), Quota(9, 3600)), clock)
    async with client_of(limited_app(RequestLimit(limiter, name="orders", clock=clock))) as http:
        answer = await http.get("/orders")
    assert answer.headers["RateLimit-Policy"] == '"orders";q=1;w=60'
    assert answer.headers["RateLimit"] == '"orders";r=0;t=60'
    assert answer.headers["X-RateLimit-Reset"] == str(int(clock.now()) + 60)


async def test_a_limited_answer_has_the_headers_of_its_quota(clock):
    async with client_of(limited_app(limit_of(clock))) as http:
        answer = await http.get("/orders")
    assert answer.status_code == 200
    assert answer.headers["RateLimit-Policy"] == '"orders";q=2;w=60'
    assert answer.headers["RateLimit"] == '"orders";r=1;t=60'
    assert answer.headers["X-RateLimit-Limit"] == "2"
    assert answer.headers["X-RateLimit-Remaining"] == "1"
    assert answer.headers["X-RateLimit-Reset"] == str(int(clock.now()) + 60)


@pytest.mark.parametrize("path", ["/direct", "/orders?limit=none"])
async def test_every_kind_of_response_has_the_headers(clock, path):
    async with client_of(limited_app(limit_of(clock))) as http:
        assert (await http.get(path)).headers["RateLimit"] == '"orders";r=1;t=60'


async def test_a_request_beyond_the_quota_is_rejected_and_uses_no_units(clock):
    async with client_of(limited_app(limit_of(clock))) as http:
        for _ in range(2):
            await http.get("/orders")
        clock.jump(12.5)
        refused = [await http.get("/orders") for _ in range(3)][-1]
        assert refused.status_code == 429
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.headers["Retry-After"] == "48"
        assert refused.headers["RateLimit"] == '"orders";r=0;t=48'
        assert refused.json() == {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Quota exceeded",
            "status": 429,
            "detail": "Rate limit exceeded",
            "code": "RATE_LIMIT_EXCEEDED",
            "violated-policies": ["orders"],
        }
        clock.jump(47.5)
        assert (await http.get("/orders")).status_code == 200


async def test_each_client_has_a_separate_quota(clock):
    app = limited_app(limit_of(clock, 1))
    for address in ("203.0.113.7", "203.0.113.8", "2001:db8::1"):
        async with client_of(app, address) as http:
            assert (await http.get("/orders")).status_code == 200
            assert (await http.get("/orders")).status_code == 429
    async with client_of(app, "2001:db8::ffff") as http:
        assert (await http.get("/orders")).status_code == 429, "the same /64"


async def test_a_request_with_two_limits_has_the_headers_of_both(clock):
    app = limited_app(limit_of(clock, 9, "burst"), limit_of(clock, 3, "daily"))
    async with client_of(app) as http:
        answer = await http.get("/orders")
        assert answer.headers.get_list("RateLimit") == ['"burst";r=8;t=60', '"daily";r=2;t=60']
        assert answer.headers.get_list("X-RateLimit-Remaining") == ["2"]


async def test_a_request_with_a_larger_cost_returns_its_decision(clock):
    limit = limit_of(clock, 5, cost=2)
    app = FastAPI()
    add_resilience(app)
    router = APIRouter()

    @router.get("/")
    async def read(decision: Annotated[Decision, Depends(limit)]):
        return decision.remaining

    app.include_router(router)
    async with client_of(app) as http:
        assert [(await http.get("/")).json() for _ in range(2)] == [3, 1]
        assert (await http.get("/")).status_code == 429


def test_an_error_names_the_invalid_argument_of_a_limit(clock):
    with pytest.raises(ValueError, match="cost"):
        limit_of(clock, 5, cost=6)
    for name in ("", 'a"b', "a\\b", "grün", "a\r\nb"):
        with pytest.raises(ValueError, match="name"):
            limit_of(clock, name=name)


async def test_a_limit_without_its_middleware_raises_an_error_with_instructions(clock):
    app = FastAPI(dependencies=[Depends(limit_of(clock))])

    @app.get("/")
    async def read():
        return None

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://a", trust_env=False) as http:
        with pytest.raises(RuntimeError, match="call add_resilience"):
            await http.get("/")


async def test_an_app_within_an_app_sends_the_headers_once(clock):
    inner = limited_app(limit_of(clock))
    outer = FastAPI()
    add_resilience(outer)
    outer.mount("/inner", inner)
    async with client_of(outer) as http:
        assert (await http.get("/inner/orders")).headers.get_list("RateLimit") == ['"orders";r=1;t=60']


# ---------------------------------------------------------------- the key of the quota


@pytest.mark.parametrize("forged", [{"X-Forwarded-For": "198.51.100.1"}, {"Forwarded": "for=198.51.100.1"}])
async def test_a_client_cannot_choose_its_address(clock, forged):
    async with client_of(limited_app(limit_of(clock, 1))) as http:
        assert (await http.get("/orders")).status_code == 200
        assert (await http.get("/orders", headers=forged)).status_code == 429


async def test_behind_a_trusted_proxy_the_client_comes_from_the_header(clock):
    key = client_address_behind("10.0.0.0/8", "2001:db8::/32")
    app = limited_app(limit_of(clock, 1, key=key))
    async with client_of(app, "10.1.2.3") as http:
        for client in ("198.51.100.1", "198.51.100.2"):
            forwarded = {"X-Forwarded-For": f"192.0.2.66, {client}"}
            assert (await http.get("/orders", headers=forwarded)).status_code == 200
            assert (await http.get("/orders", headers=forwarded)).status_code == 429
    async with client_of(app, "203.0.113.7") as http:
        assert (await http.get("/orders", headers=forwarded)).status_code == 200, "not a trusted proxy"


def test_a_trusted_proxy_that_is_no_network_is_rejected():
    for wrong in ((), ("proxy.example",), ("10.0.0.1/8",)):
        with pytest.raises(ValueError, match=r"trusted_proxies|network|host bits"):
            client_address_behind(*wrong)


async def test_a_key_function_can_read_any_part_of_the_request(clock):
    limit = limit_of(clock, 1, key=lambda request: request.headers.get("X-Tenant", client_address(request)))
    async with client_of(limited_app(limit)) as http:
        for tenant in ("a", "b"):
            assert (await http.get("/orders", headers={"X-Tenant": tenant})).status_code == 200
        assert (await http.get("/orders", headers={"X-Tenant": "b"})).status_code == 429


# ---------------------------------------------------------------- rejections


class StoreError(ResilienceError):
    """An error that a later version may add."""


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (CircuitOpenError("secret", "open", 4.2), 503, "CIRCUIT_OPEN", "5"),
        (CircuitOpenError("secret", "held open by hand", None), 503, "CIRCUIT_OPEN", "30"),
        (BulkheadFullError("secret", "full", 0.001), 503, "BULKHEAD_FULL", "1"),
        (RateLimitedError("secret", "spent", 7.0), 429, "RATE_LIMIT_EXCEEDED", "7"),
        (QueueFullError("secret", "full", 2.5), 503, "QUEUE_FULL", "3"),
        (QueueClosedError("secret", "closed", 1.0), 503, "QUEUE_CLOSED", "1"),
        (QueueTimeoutError(5.0, 9.0), 504, "QUEUE_TIMEOUT", "9"),
        (QueueTimeoutError(5.0), 504, "QUEUE_TIMEOUT", "30"),
        (CallTimeoutError(2.0), 504, "CALL_TIMEOUT", "30"),
        (RejectedError("secret", "no", float("inf")), 503, "SERVICE_UNAVAILABLE", "30"),
        (StoreError("secret"), 503, "SERVICE_UNAVAILABLE", "30"),
    ],
)
async def test_every_rejection_is_a_problem_with_retry_after(error, status, code, retry_after):
    app = FastAPI()
    add_resilience(app)

    @app.get("/")
    async def read():
        raise error

    async with client_of(app) as http:
        answer = await http.get("/")
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == retry_after
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == "about:blank" or problem["type"].startswith("https://iana.org/")
    assert {"title", "detail"} <= problem.keys()
    assert "secret" not in answer.text


async def test_the_default_retry_seconds_can_be_set():
    app = FastAPI()
    add_resilience(app, default_retry_seconds=2.2)

    @app.get("/")
    async def read():
        raise CallTimeoutError(1)

    async with client_of(app) as http:
        assert (await http.get("/")).headers["Retry-After"] == "3"
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="default_retry_seconds"):
            add_resilience(FastAPI(), default_retry_seconds=wrong)


async def test_other_errors_and_websockets_are_not_affected():
    app = FastAPI()
    add_resilience(app)

    @app.get("/")
    async def read():
        raise LookupError

    @app.websocket("/ws")
    async def socket(websocket):
        await websocket.accept()
        await websocket.close()

    async with client_of(app) as http:
        assert (await http.get("/")).status_code == 500
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    assert sent[0] in {"websocket.accept", "websocket.close"}


# ---------------------------------------------------------------- the lifespan


class Resource:
    def __init__(self, name, log, *, fails=False):
        self.name, self.log, self.fails = name, log, fails

    async def aclose(self):
        self.log.append(f"{self.name} closed")
        if self.fails:
            raise OSError(self.name)


async def test_resources_are_closed_in_the_opposite_order():
    log = []

    @asynccontextmanager
    async def pool():
        log.append("pool opened")
        yield
        log.append("pool closed")

    app = FastAPI(lifespan=closing_lifespan(Resource("a", log), pool(), Resource("b", log)))
    async with app.router.lifespan_context(app):
        assert log == ["pool opened"]
        log.append("served")
    assert log == ["pool opened", "served", "b closed", "pool closed", "a closed"]


async def test_a_failing_resource_does_not_keep_the_others_open():
    log = []
    lifespan = closing_lifespan(Resource("a", log), Resource("b", log, fails=True))
    with pytest.raises(OSError, match="b"):
        async with lifespan(FastAPI()):
            pass
    assert log == ["b closed", "a closed"]


async def test_a_resource_that_cannot_be_closed_is_rejected_at_the_start():
    log = []
    with pytest.raises(TypeError, match="aclose"):
        async with closing_lifespan(Resource("a", log), "queue")(FastAPI()):
            raise AssertionError("not reached")
    assert log == ["a closed"]


async def test_a_queue_rejects_its_callers_when_the_application_stops(clock):
    options = PacedQueueOptions(interval_seconds=10, max_wait_seconds=60)
    queue = PacedQueue(options, MemoryPaceStore(options, clock), clock)
    app = FastAPI(lifespan=closing_lifespan(queue))
    add_resilience(app)

    @app.get("/")
    async def read():
        await queue.run(lambda: asyncio.sleep(0))

    async with client_of(app) as http:
        async with app.router.lifespan_context(app):
            assert (await http.get("/")).status_code == 200
            waiting = asyncio.create_task(http.get("/"))
            await clock.advance(1)
        answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (503, "QUEUE_CLOSED")
