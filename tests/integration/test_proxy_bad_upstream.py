"""The internal proxy over real sockets, with an upstream whose responses violate HTTP."""

import asyncio

import pytest

from tests.support.api import CALM, PLENTY, running_api
from tests.support.upstream import echo, running_upstream

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
"""An answer without a request."""


@pytest.fixture
def start_api(redis_server):
    def start(upstream, **settings):
        settings = {"proxy_rate_limit_seconds": 0.05, "proxy_upstream_url": upstream.url} | settings
        return running_api(redis_server.url, **(PLENTY | CALM | settings))

    return start


ANSWERS_WITH_TOO_MUCH = {
    "after the length": ("GET", b"200 OK\r\nContent-Length: 5\r\n\r\nfirst"),
    "after the last chunk": ("GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n"),
    "after a 204": ("GET", b"204 No Content\r\n\r\n"),
    "after a 304": ("GET", b"304 Not Modified\r\n\r\n"),
    "after the answer to a HEAD": ("HEAD", b"200 OK\r\nContent-Length: 45\r\n\r\n"),
}


@pytest.mark.parametrize("later", [False, True], ids=["in the same segment", "later"])
@pytest.mark.parametrize(("method", "head"), ANSWERS_WITH_TOO_MUCH.values(), ids=ANSWERS_WITH_TOO_MUCH)
async def test_bytes_after_an_answer_do_not_reach_another_caller(start_api, method, head, later):
    async def answer_too_much(upstream, line, writer):
        if len(upstream.arrivals) > 1:
            await echo(upstream, line, writer)
            return
        writer.write(b"HTTP/1.1 " + head)
        if later:
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(FORGED)

    async with running_upstream(answer_too_much) as upstream, start_api(upstream) as api:
        first = await api.request(method, "/proxy/first")
        assert first.status_code < 400
        assert first.text == ("first" if b"first" in head else "")
        for path in ("/proxy/second", "/proxy/third", "/proxy/second"):
            answer = await api.get(path)
            assert answer.text == f"GET {path.removeprefix('/proxy')} HTTP/1.1"


async def test_each_call_uses_a_new_connection_and_sends_connection_close(start_api):
    async with running_upstream() as upstream, start_api(upstream) as api:
        for path in ("/proxy/a", "/proxy/b", "/proxy/c"):
            await api.get(path)
        assert upstream.connections == 3
        assert all("connection: close" in headers for headers in upstream.headers)


async def test_an_answer_that_precedes_its_request_reaches_no_other_caller(start_api):
    served = 0

    async def serve(reader, writer):
        nonlocal served
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % served + FORGED)
        await reader.read()
        writer.close()

    async with running_upstream(serve=serve) as upstream, start_api(upstream) as api:
        answers = [await api.get(f"/proxy/{n}") for n in (1, 2, 3)]
        assert [answer.text for answer in answers] == ["1", "2", "3"]


async def test_a_flood_of_interim_answers_is_cut_off(start_api):
    sent = 0

    async def flood(_upstream, _line, writer):
        nonlocal sent
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
            await writer.drain()
            sent += 25_000

    async with running_upstream(flood) as upstream, start_api(upstream, proxy_upstream_timeout=600) as api:
        async with asyncio.timeout(30):
            answer = await api.get("/proxy/a")
        assert (answer.status_code, answer.json()["code"]) == (503, "EXTERNAL_SERVICE_UNAVAILABLE")
        assert sent < 20_000_000  # the size of the socket buffers


async def test_a_few_interim_answers_are_ignored(start_api):
    async def hint(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with running_upstream(hint) as upstream, start_api(upstream) as api:
        answer = await api.get("/proxy/a")
        assert (answer.status_code, answer.text) == (200, "hi")
        assert "link" not in answer.headers


@pytest.mark.parametrize(
    "head",
    [
        b"101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n",
        b"200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n",
        b"200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"200 OK\r\nContent-Length: -1\r\n",
        b"200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\n",
        b"200 OK\r\n folded: 1\r\n",
    ],
)
async def test_a_head_that_is_not_http_is_a_503_and_not_kept(start_api, head):
    async def answer_with_unusual_headers(_upstream, _line, writer):
        writer.write(b"HTTP/1.1 " + head + b"\r\nhello")
        await writer.drain()
        writer.close()

    async with running_upstream(answer_with_unusual_headers) as upstream, start_api(upstream) as api:
        for _ in range(2):
            answer = await api.get("/proxy/a")
            assert (answer.status_code, answer.json()["code"]) == (503, "EXTERNAL_SERVICE_UNAVAILABLE")
        assert len(upstream.arrivals) == 2
