"""One call of the proxy's upstream."""

import asyncio
import time

import httpx
import pytest

from src.services.external_service import ExternalServiceError
from src.services.proxy.response_buffer import ResponseBuffer
from src.services.proxy.upstream import (
    MAX_POSTPONED_SECONDS,
    RECENT_ANSWERS,
    Upstream,
    UpstreamAnswerTooLargeError,
    UpstreamRequest,
)
from tests.support.clock import settle
from tests.support.proxy_fleet import Stream

MAX_BYTES = 1000


class UpstreamFixture:
    """An `Upstream` over a transport, with the seconds for which it postponed the queue."""

    def __init__(self, clock, transport):
        self.postponed = []
        self.buffer = ResponseBuffer()
        self.clock = clock
        self._upstream = Upstream(
            httpx.AsyncClient(transport=transport),
            clock,
            self._postpone,
            interval_seconds=1.0,
            max_body_bytes=MAX_BYTES,
        )

    async def _postpone(self, seconds):
        self.postponed.append(seconds)

    async def call(self, method="GET", headers=()):
        asked = UpstreamRequest(method, httpx.URL("http://upstream.example/a%2Cb?c"), headers)
        return await self._upstream.call(asked, self.buffer)

    async def body(self):
        self.buffer.end()
        return b"".join([chunk async for chunk in self.buffer.body()])


@pytest.fixture
def make_upstream(clock):
    def build(answer):
        is_transport = isinstance(answer, httpx.AsyncBaseTransport)
        return UpstreamFixture(clock, answer if is_transport else httpx.MockTransport(answer))

    return build


def answering(status, *chunks, headers=None):
    return lambda _: httpx.Response(status, headers=headers, stream=Stream(*chunks))


async def test_the_request_is_sent_unchanged_without_cookies_or_further_headers(make_upstream):
    asked = []

    def answer(request):
        asked.append(request)
        headers = [("Set-Cookie", "a=b"), ("X-Both", "1"), ("X-Both", "2")]
        return httpx.Response(200, headers=headers, stream=Stream())

    upstream = make_upstream(answer)
    for _ in range(2):
        upstream.buffer = ResponseBuffer()
        await upstream.call("HEAD", ((b"accept", b"*/*"), (b"x-both", b"1"), (b"x-both", b"2")))
    for request in asked:
        assert (request.method, str(request.url)) == ("HEAD", "http://upstream.example/a%2Cb?c")
        assert request.headers.raw == [
            (b"Host", b"upstream.example"), (b"accept", b"*/*"), (b"x-both", b"1"), (b"x-both", b"2"),
        ]  # fmt: skip
    head = await upstream.buffer.head()
    assert head.headers == ((b"set-cookie", b"a=b"), (b"x-both", b"1"), (b"x-both", b"2"))


async def test_the_last_piece_of_a_body_of_known_length_is_returned(make_upstream):
    upstream = make_upstream(answering(200, b"abc", b"def", headers={"Content-Length": "6"}))
    assert await upstream.call() == b"def"
    assert await upstream.body() == b"abc"


async def test_a_body_of_unknown_length_is_written_whole(make_upstream):
    upstream = make_upstream(answering(404, b"abc", b"def"))
    assert await upstream.call() == b""
    assert (await upstream.buffer.head()).status == 404
    assert await upstream.body() == b"abcdef"


async def test_pieces_can_be_read_before_the_last_one_has_come(make_upstream):
    rest = asyncio.Event()

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"first"
            await rest.wait()
            yield b"last"

    upstream = make_upstream(lambda _: httpx.Response(200, stream=Slow()))
    calling = asyncio.create_task(upstream.call())
    pieces = upstream.buffer.body()
    assert await anext(pieces) == b"first"
    assert not calling.done()
    rest.set()
    assert await anext(pieces) == b"last"
    await calling


@pytest.mark.parametrize(
    "answer",
    [
        answering(500, b"oops"),
        answering(600),
        answering(999),
        answering(199),
        answering(200, headers={"X-Odd": b"a\x01b"}),
        answering(404, headers={"X-Odd": b"a\x7f"}),
        answering(200, b"half", httpx.ReadError("cut")),
        answering(200, b"half", ConnectionResetError("cut")),
    ],
)
async def test_an_answer_that_is_an_error_or_incomplete_or_not_http_is_a_failure(make_upstream, answer):
    with pytest.raises(ExternalServiceError):
        await make_upstream(answer).call()


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), OSError("gone")])
async def test_a_missing_response_is_a_failure(make_upstream, error):
    def answer(request):
        raise error

    with pytest.raises(ExternalServiceError, match="no answer"):
        await make_upstream(answer).call()


async def test_a_response_with_a_content_length_above_the_limit_is_not_read(make_upstream):
    upstream = make_upstream(answering(200, headers={"Content-Length": str(MAX_BYTES + 1)}))
    with pytest.raises(UpstreamAnswerTooLargeError) as caught:
        await upstream.call()
    assert caught.value.max_bytes == MAX_BYTES
    waiting = asyncio.create_task(upstream.buffer.head())
    await settle()
    assert not waiting.done()
    waiting.cancel()


async def test_a_length_beside_a_transfer_encoding_is_ignored(make_upstream):
    headers = {"Content-Length": str(MAX_BYTES + 1), "Transfer-Encoding": "chunked"}
    upstream = make_upstream(answering(200, b"abc", headers=headers))
    assert await upstream.call() == b""
    assert (await upstream.buffer.head()).headers == ()
    assert await upstream.body() == b"abc"


async def test_a_response_to_head_may_have_a_large_content_length(make_upstream):
    upstream = make_upstream(answering(200, headers={"Content-Length": str(MAX_BYTES + 1)}))
    await upstream.call("HEAD")
    assert (await upstream.buffer.head()).headers == ((b"content-length", b"1001"),)


async def test_a_response_that_exceeds_the_limit_is_cut(make_upstream):
    upstream = make_upstream(answering(200, b"x" * MAX_BYTES, b"y"))
    with pytest.raises(UpstreamAnswerTooLargeError):
        await upstream.call()
    assert await upstream.body() == b"x" * MAX_BYTES


async def test_a_response_of_the_greatest_length_is_passed_on(make_upstream):
    upstream = make_upstream(answering(200, b"x" * MAX_BYTES))
    await upstream.call()
    assert await upstream.body() == b"x" * MAX_BYTES


@pytest.mark.parametrize(
    ("retry_after", "postponed", "passed_on"),
    [
        ("7", [7.0], "7"),
        ("Fri, 15 Jan 2027 08:00:20 GMT", [20.0], "20"),  # 1,800,000,000 on the clock is 08:00:00
        ("Fri, 15 Jan 2027 07:59:00 GMT", [], "1"),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", [], "1"),
        ("99999999999999999999", [MAX_POSTPONED_SECONDS], "99999999999999999999"),
        ("9" * 400, [MAX_POSTPONED_SECONDS], "9" * 400),
        ("0", [], "1"),
        ("soon", [], "1"),
        ("-1", [], "1"),
        (None, [], "1"),
    ],
)
async def test_a_429_is_passed_on_and_postpones_all_calls(make_upstream, retry_after, postponed, passed_on):
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    upstream = make_upstream(answering(429, headers=headers))
    await upstream.call()
    head = await upstream.buffer.head()
    assert (head.status, head.headers) == (429, ((b"retry-after", passed_on.encode()),))
    assert upstream.postponed == postponed


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone can't be changed here")
async def test_a_date_without_a_zone_is_in_utc(make_upstream, monkeypatch):
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    try:
        upstream = make_upstream(answering(429, headers={"Retry-After": "Fri Jan 15 08:00:20 2027"}))
        await upstream.call()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert upstream.postponed == [20.0]


class TimedTransport(httpx.AsyncBaseTransport):
    """A transport that connects in 0.3 s and responds after the given seconds."""

    def __init__(self, clock, answered_after):
        self._clock = clock
        self._answered_after = iter(answered_after)

    async def handle_async_request(self, request):
        trace = request.extensions["trace"]
        self._clock.jump(0.3)
        await trace("http11.send_request_headers.complete", {})
        self._clock.jump(next(self._answered_after))
        await trace("http11.receive_response_headers.complete", {})
        return httpx.Response(200, stream=Stream())


@pytest.mark.parametrize(
    ("answered_after", "postponed"),
    [
        ([0.1], [1.0, 1.0]),  # the transfer may have taken all the time until the reply
        ([0.125, 0.125], [1.0, 1.0, 1.0]),  # the duration of an answer is known now
        ([0.125, 0.375], [1.0, 1.0, 1.0, 0.875]),  # the request may have taken 0.25 s of this time
        ([0.5, 0.25, 0.5], [1.0, 1.0, 1.0, 1.0, 0.75]),  # the fastest counts
        ([5.0], [1.0]),  # the next one may have been sent
        (
            [0.1, *[0.5] * RECENT_ANSWERS, 0.5],
            [1.0, 1.0, *[1.0, 0.9] * RECENT_ANSWERS, 1.0],
        ),  # only recent answers count
    ],
)
async def test_the_next_call_is_an_interval_after_the_latest_arrival_of_this_one(
    make_upstream, clock, answered_after, postponed
):
    upstream = make_upstream(TimedTransport(clock, answered_after))
    for _ in answered_after:
        upstream.buffer = ResponseBuffer()
        await upstream.call()
    assert upstream.postponed == pytest.approx(postponed)
