"""The transport that runs each request of an httpx client through a policy."""

import asyncio
from email.utils import formatdate

import httpx
import pytest

from src.resilience import (
    Bulkhead,
    BulkheadOptions,
    CallTimeoutError,
    CircuitBreaker,
    CircuitBreakerOptions,
    CircuitOpenError,
    Fallback,
    Fixed,
    Hedging,
    HedgingOptions,
    MemoryBreakerStore,
    Pipeline,
    Retry,
    RetryOptions,
    Timeout,
)
from src.resilience.clock import SystemRandomizer
from src.resilience.httpx import FailureResponseError, ResendRefusedError, ResilientTransport

URL = "https://bank.example/accounts"


class Body(httpx.AsyncByteStream):
    """A body that records whether it was closed."""

    def __init__(self, *chunks, error=None):
        self.chunks = chunks
        self.error = error
        self.is_closed = False

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk
        if self.error is not None:
            raise self.error

    async def aclose(self):
        self.is_closed = True


class Server(httpx.AsyncBaseTransport):
    """Responds from a list of statuses, responses and errors. Seconds in the list delay the next response."""

    def __init__(self, clock, *answers):
        self.clock = clock
        self.answers = list(answers)
        self.requests = []
        self.received = []
        self.bodies = []
        self.open_bodies = []
        self.is_closed = False

    async def handle_async_request(self, request):
        self.requests.append(request)
        self.open_bodies.append(sum(not getattr(body, "is_closed", True) for body in self.bodies))
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.ConnectError):
            raise answer
        self.received.append(b"".join([chunk async for chunk in request.stream]))
        if isinstance(answer, tuple):
            seconds, answer = answer
            await self.clock.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            answer = httpx.Response(answer, stream=Body(b"status ", b"%d" % answer))
        self.bodies.append(answer.stream)
        return answer

    async def aclose(self):
        self.is_closed = True


@pytest.fixture
def retry(clock):
    options = RetryOptions(attempts=3, total_seconds=100, backoff=Fixed(1))
    return Retry(options, clock, SystemRandomizer())


def client(server, policy, **options):
    return httpx.AsyncClient(
        transport=ResilientTransport(policy, server, clock=server.clock, **options), trust_env=False
    )


async def test_a_request_goes_through_the_policy(clock, retry):
    server = Server(clock, httpx.ConnectError("refused"), httpx.ReadError("reset"), 200)
    async with client(server, retry) as http:
        response = await clock.drive(http.get(URL))
    assert (response.status_code, response.text) == (200, "status 200")
    assert clock.sleeps == [1, 1]
    assert server.is_closed


async def test_a_failure_status_is_retried_and_its_response_closed(clock, retry):
    server = Server(clock, 503, 200)
    async with client(server, retry) as http:
        response = await clock.drive(http.get(URL))
    assert response.text == "status 200"
    assert [body.is_closed for body in server.bodies] == [True, True]


@pytest.mark.parametrize("size", [10, 100_000], ids=["buffered", "longer than the bound"])
async def test_the_client_gets_the_response_of_the_last_attempt(clock, retry, size):
    last = httpx.Response(503, headers={"X-Attempt": "3"}, stream=Body(b"a" * size, b"b"))
    server = Server(clock, 500, 502, last)
    async with client(server, retry) as http, http.stream("GET", URL) as response:
        assert server.bodies[0].is_closed
        assert server.bodies[1].is_closed
        assert response.status_code == 503
        assert response.headers["X-Attempt"] == "3"
        assert await response.aread() == b"a" * size + b"b"
        with pytest.raises(httpx.HTTPStatusError):
            response.raise_for_status()
    assert all(body.is_closed for body in server.bodies)


@pytest.fixture(autouse=True)
def time_passes(clock, monkeypatch):
    """Let each sleep move the fake time, since no test drives the clock."""

    async def sleep(seconds):
        clock.sleeps.append(seconds)
        clock.jump(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(clock, "sleep", sleep)


async def test_a_connection_is_free_while_a_retry_waits(clock, retry):
    server = Server(clock, 503, 200)
    policy = Pipeline(retry)
    closed = []
    sleep = clock.sleep

    async def note(seconds):
        closed.append(server.bodies[0].is_closed)
        await sleep(seconds)

    clock.sleep = note
    async with client(server, policy) as http:
        await http.get(URL)
    assert closed == [True]


async def test_a_response_with_another_status_is_no_failure(clock, retry):
    server = Server(clock, 404)
    async with client(server, retry) as http:
        assert (await http.get(URL)).status_code == 404
    server = Server(clock, 503)
    async with client(server, retry, failure_statuses=()) as http:
        assert (await http.get(URL)).status_code == 503
    assert clock.sleeps == []


async def test_the_body_of_a_successful_response_is_not_read(clock, retry):
    body = Body(b"a", b"b")
    server = Server(clock, httpx.Response(200, stream=body))
    async with client(server, retry) as http, http.stream("GET", URL) as response:
        assert not body.is_closed
        assert [chunk async for chunk in response.aiter_raw()] == [b"a", b"b"]
    assert body.is_closed


# ---------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("value", "wait"),
    [("7", 7), ("0", 1), ("soon", 1), ("", 1), ("-5", 1), ("date", 20), ("past", 1)],
)
async def test_the_retry_waits_for_retry_after(clock, retry, value, wait):
    dates = {"date": formatdate(clock.now() + 20, usegmt=True), "past": formatdate(clock.now() - 20)}
    headers = {"Retry-After": dates.get(value, value)}
    server = Server(clock, httpx.Response(503, headers=headers), 200)
    async with client(server, retry) as http:
        assert (await http.get(URL)).status_code == 200
    assert clock.sleeps == [wait]


async def test_no_wait_begins_that_exceeds_the_total_time(clock, retry):
    server = Server(clock, httpx.Response(429, headers={"Retry-After": "3600"}))
    async with client(server, retry) as http:
        assert (await http.get(URL)).status_code == 429
    assert clock.sleeps == []


# ---------------------------------------------------------------- requests that may not be sent twice


@pytest.mark.parametrize("failure", [503, httpx.ReadTimeout("slow")], ids=["status", "error"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_that_is_not_idempotent_is_sent_once(clock, retry, method, failure):
    server = Server(clock, failure)
    async with client(server, retry) as http:
        if isinstance(failure, int):
            assert (await http.request(method, URL, json={})).status_code == failure
        else:
            with pytest.raises(httpx.ReadTimeout) as raised:
                await http.request(method, URL, json={})
            assert raised.value.retry_after is None
            assert raised.value.request.method == method
    assert len(server.requests) == 1
    assert clock.sleeps == []


async def test_a_request_that_never_reached_the_server_is_sent_again(clock, retry):
    server = Server(clock, httpx.ConnectError("refused"), 201)
    async with client(server, retry) as http:
        assert (await http.post(URL, content=streamed_parts(b"a" * 100_000, b"b"))).status_code == 201
    assert server.received == [b"a" * 100_000 + b"b"]


async def test_an_idempotency_key_makes_a_post_repeatable(clock, retry):
    server = Server(clock, 503, 201)
    async with client(server, retry) as http:
        response = await http.post(URL, json={}, headers={"Idempotency-Key": "k"})
    assert response.status_code == 201
    assert server.received == [b"{}", b"{}"]


async def test_a_predicate_can_define_repeatable_requests(clock, retry):
    server = Server(clock, 503, 201)
    async with client(server, retry, may_resend=lambda request: True) as http:
        assert (await http.post(URL, json={})).status_code == 201


async def test_a_post_that_timed_out_is_not_sent_again(clock, retry):
    server = Server(clock, (9, 201))
    server.clock = SlowClock()
    policy = Pipeline(retry, Timeout(5, StoppingClock()))
    async with client(server, policy) as http:
        with pytest.raises(CallTimeoutError):
            await http.post(URL, json={})
    assert len(server.requests) == 1
    assert clock.sleeps == [1]


async def test_a_post_that_was_stopped_is_a_failure_to_the_breaker(clock, retry):
    server = Server(clock, (9, 201))
    server.clock = SlowClock()
    breaker = CircuitBreaker(
        "bank", MemoryBreakerStore(clock), CircuitBreakerOptions(failure_threshold=1), clock
    )
    async with client(server, Pipeline(breaker, retry, Timeout(5, StoppingClock()))) as http:
        with pytest.raises(CallTimeoutError):
            await http.post(URL, json={})
        with pytest.raises(CircuitOpenError):
            await http.post(URL, json={})


async def test_another_attempt_at_a_post_by_any_other_policy_is_refused(clock):
    server = Server(clock, 503)
    async with client(server, TriesTwice()) as http:
        with pytest.raises(
            ResendRefusedError, match=r"POST https://bank.example/accounts is not sent again"
        ) as refused:
            await http.post(URL, json={})
    assert refused.value.retry_after is None
    assert len(server.requests) == 1


class TriesTwice:
    """Makes a second attempt whatever the error of the first."""

    async def run(self, call):
        try:
            return await call()
        except Exception:
            return await call()


class SlowClock:
    async def sleep(self, seconds):
        await asyncio.Event().wait()

    def now(self):
        return 0.0


class StoppingClock:
    """A clock whose timeouts expire as soon as the call waits."""

    def timeout(self, seconds):
        return asyncio.timeout(0.001)


# ---------------------------------------------------------------- bodies of requests


async def streamed_parts(*chunks):
    for chunk in chunks:
        yield chunk


async def test_a_short_streamed_body_is_kept_and_sent_again(clock, retry):
    server = Server(clock, 503, 200)
    async with client(server, retry) as http:
        assert (await http.put(URL, content=streamed_parts(b"a", b"b"))).status_code == 200
    assert server.received == [b"ab", b"ab"]


async def test_a_long_streamed_body_is_sent_once(clock, retry):
    server = Server(clock, 503)
    async with client(server, retry, max_buffered_bytes=10) as http:
        assert (await http.put(URL, content=streamed_parts(b"a" * 6, b"b" * 6, b"c"))).status_code == 503
    assert server.received == [b"a" * 6 + b"b" * 6 + b"c"]
    assert clock.sleeps == []


async def test_a_long_streamed_body_is_not_cut_short_by_a_redirect(clock):
    server = Server(clock, httpx.Response(307, headers={"Location": "/elsewhere"}))
    async with client(server, Pipeline(), max_buffered_bytes=0) as http:
        with pytest.raises(httpx.StreamConsumed):
            await http.put(URL, content=streamed_parts(b"a", b"b"), follow_redirects=True)


async def test_a_form_with_a_file_is_sent_again(clock, retry):
    server = Server(clock, 503, 200)
    async with client(server, retry) as http:
        assert (await http.put(URL, files={"file": b"content"})).status_code == 200
    assert server.received[0] == server.received[1]
    assert b"content" in server.received[0]


# ---------------------------------------------------------------- with other policies


async def test_a_breaker_counts_failure_statuses_and_opens(clock):
    breaker = CircuitBreaker(
        "bank", MemoryBreakerStore(clock), CircuitBreakerOptions(failure_threshold=2), clock
    )
    server = Server(clock, 500, 503)
    async with client(server, breaker) as http:
        assert [(await http.get(URL)).status_code for _ in range(2)] == [500, 503]
        with pytest.raises(CircuitOpenError):
            await http.get(URL)


async def test_policies_get_the_response(clock):
    seen = []

    def substitute(error):
        seen.append((error.response.status_code, error.request.method, error.retry_after))
        return httpx.Response(200, text="yesterday's")

    server = Server(clock, httpx.Response(503, headers={"Retry-After": "9"}, stream=Body(b"no")))
    async with client(server, Fallback(substitute, handles=(FailureResponseError,))) as http:
        assert (await http.get(URL)).text == "yesterday's"
    assert seen == [(503, "GET", 9.0)]
    assert server.bodies[0].is_closed


async def test_policies_get_the_request_of_an_error(clock):
    def is_retryable(error):
        return error.request.url.path == "/accounts"

    options = RetryOptions(attempts=2, backoff=Fixed(1), retry_on=is_retryable)
    server = Server(clock, httpx.ReadError("reset"), 200)
    async with client(server, Retry(options, clock, SystemRandomizer())) as http:
        assert (await http.get(URL)).status_code == 200


async def test_an_abandoned_long_response_is_closed_by_the_next_attempt(clock, retry):
    server = Server(clock, httpx.Response(503, stream=Body(b"a" * 20, b"b")), 200)
    async with client(server, retry, max_buffered_bytes=10) as http, http.stream("GET", URL):
        assert server.open_bodies == [0, 0]
        assert [body.is_closed for body in server.bodies] == [True, False]


async def test_an_incomplete_body_is_a_failed_attempt(clock, retry):
    broken = httpx.Response(503, stream=Body(b"a", error=httpx.ReadError("reset")))
    server = Server(clock, broken, 200)
    async with client(server, retry) as http:
        assert (await http.get(URL)).status_code == 200
    assert server.bodies[0].is_closed


class TestHedging:
    """Hedging with a clock that the test moves."""

    @pytest.fixture(autouse=True)
    def time_passes(self):
        """Override the fixture of the module: here sleeps do not move the time."""

    async def test_the_response_of_the_second_attempt_is_returned(self, clock):
        server = Server(clock, (5, 200), (1, 200))
        response = await clock.drive(client(server, Hedging(HedgingOptions(1), clock)).get(URL))
        assert response.text == "status 200"
        assert clock.monotonic() == 2

    async def test_a_post_is_not_hedged(self, clock):
        server = Server(clock, (5, 201))
        http = client(server, Hedging(HedgingOptions(1), clock))
        response = await clock.drive(http.post(URL, json={}))
        assert response.status_code == 201
        assert len(server.requests) == 1

    async def test_a_cancelled_request_leaves_no_response_open(self, clock):
        server = Server(clock, (5, 200))
        bulkhead = Bulkhead(BulkheadOptions(1), clock)
        http = client(server, bulkhead)
        asking = asyncio.create_task(http.get(URL))
        await clock.advance(1)
        assert bulkhead.in_use == 1
        asking.cancel()
        await clock.advance(0)
        assert asking.cancelled()
        assert bulkhead.in_use == 0

    async def test_a_timeout_of_the_policy_raises_the_librarys_error(self, clock):
        http = client(Server(clock, (5, 200)), Timeout(2, clock))
        with pytest.raises(CallTimeoutError):
            await clock.drive(http.get(URL))


class TwoAttempts:
    """A policy that makes two attempts and returns the result of one of them."""

    def __init__(self, kept):
        self.kept = kept

    async def run(self, call):
        return [await call(), await call()][self.kept]


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_response_that_the_policy_does_not_return_is_closed(clock, kept):
    server = Server(clock, 200, 404)
    async with client(server, TwoAttempts(kept)) as http, http.stream("GET", URL) as response:
        assert response.status_code == [200, 404][kept]
        assert [body.is_closed for body in server.bodies] == [kept == 1, kept == 0]


class SlowClosingBody(Body):
    async def aclose(self):
        await asyncio.sleep(0)


async def test_a_closed_coroutine_of_a_request_awaits_nothing(clock):
    body = SlowClosingBody(b"a" * 100)
    transport = ResilientTransport(WaitAfterCall(), Server(clock, httpx.Response(200, stream=body)))
    running = transport.handle_async_request(httpx.Request("GET", URL))
    running.send(None)
    running.close()


class WaitAfterCall:
    async def run(self, call):
        answer = await call()
        await asyncio.Event().wait()
        return answer


def test_an_error_names_the_invalid_option():
    with pytest.raises(ValueError, match="max_buffered_bytes"):
        ResilientTransport(Pipeline(), max_buffered_bytes=-1)


async def test_over_real_connections_one_is_used_for_all_attempts(retry):
    connections, answers = [], [b"503 Down", b"503 Down", b"200 OK"]

    async def serve(reader, writer):
        connections.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 " + answers.pop(0) + b"\r\nContent-Length: 2\r\n\r\nhi")
            if not answers:
                break
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        inner = httpx.AsyncHTTPTransport(trust_env=False)
        async with httpx.AsyncClient(transport=ResilientTransport(retry, inner), trust_env=False) as http:
            response = await http.get(f"http://127.0.0.1:{port}/")
        assert response.text == "hi"
    assert len(connections) == 1
