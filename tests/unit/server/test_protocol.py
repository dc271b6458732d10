"""One connection: valid and rejected requests, and early answers."""

import asyncio
import json

import pytest

from tests.support.raw_http import exchange
from tests.unit.server.conftest import answer, whole_body

HOST = b"Host: x\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
TRAILERS = b"X-Forwarded-For: 203.0.113.9\r\nX-API-Key: stolen\r\nExpect: 100-continue\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
PIECES = {
    "in one segment": [CHUNKED + TRAILERS],
    "in pieces": [CHUNKED[:60], CHUNKED[60:], TRAILERS[:10], TRAILERS[10:]],
    "the trailers apart": [CHUNKED, TRAILERS],
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
async def test_trailers_are_not_read_as_headers(serve, pieces):
    server = await serve()
    response = json.loads((await exchange(server.port, *pieces)).body)
    assert response["headers"] == [["host", "x"], ["transfer-encoding", "chunked"]]
    assert response["body"] == "abc"


async def test_trailers_are_not_read_as_headers_of_the_next_request(serve):
    server = await serve()
    connection = await server.connect()
    await connection.send(CHUNKED + TRAILERS + GET)
    await connection.answer()
    assert json.loads((await connection.answer()).body)["headers"] == [["host", "x"]]


REFUSED = {
    "no Host": (b"GET /a HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two Hosts in HTTP/1.0": (b"GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /a\r\n\r\n", 505),
    "HTTP/2.0": (b"GET /a HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "a tunnel to a path": (b"CONNECT /a HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "length and chunks": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "two equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "a list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "a signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "a blank before a colon": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "a length among the trailers": (CHUNKED + b"Content-Length: 50\r\n\r\n", 400),
    "chunks in HTTP/1.0": (
        b"POST /a HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        501,
    ),
    "a coding before chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "a coding after chunks": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "chunks twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "no chunks": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "a folded line": (b"GET /a HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "bare line feeds": (b"GET /a HTTP/1.1\nHost: x\n\n", 400),
    "a bare carriage return": (b"GET /a HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n", 400),
    "a chunk's size in another base": (CHUNKED.replace(b"\r\n3\r\n", b"\r\n0x3\r\n") + b"\r\n", 400),
    "a chunk that is too long": (CHUNKED.replace(b"abc", b"abcdef") + b"\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
async def test_an_ambiguous_head_is_rejected_and_ends_the_connection(serve, request_bytes, status):
    calls = []

    async def app(scope, receive, send):
        if await whole_body(receive) is not None:
            calls.append(scope["path"])
            await answer(send, 200, {})

    server = await serve(app)
    connection = await server.connect()
    await connection.send(request_bytes + GET)
    response = await connection.answer()
    assert (response.status, response.closes) == (status, True)
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["status"] == status
    assert json.loads(response.body)["request_id"] == response.headers["x-request-id"]
    assert await connection.ends() == b""  # the bytes after it were not read as a request
    assert calls == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET http://x/a HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\r\n" + GET,
        CHUNKED.replace(b"\r\n3\r\n", b"\r\n3;extension=1\r\n") + b"\r\n",
        CHUNKED.replace(b"chunked", b"Chunked") + b"\r\n",
    ],
)
async def test_a_valid_head_is_served(serve, request_bytes):
    server = await serve()
    response = await exchange(server.port, request_bytes)
    assert response.status == 200
    assert json.loads(response.body)["path"] == "/a"


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.3"])
async def test_an_upgrade_is_ignored_and_neither_the_body_nor_the_next_request_is_lost(serve, upgrade):
    server = await serve()
    connection = await server.connect()
    wish = f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n"
    head = POST + wish.encode() + b"Content-Length: 3\r\n\r\n"
    for pieces in ([head + b"abc" + GET], [head, b"abc", GET]):
        await connection.send(*pieces)
        assert json.loads((await connection.answer()).body)["body"] == "abc"
        assert json.loads((await connection.answer()).body)["method"] == "GET"


async def test_each_of_many_pipelined_upgrade_requests_is_answered(serve):
    server = await serve()
    connection = await server.connect()
    await connection.send((GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n") * 2000)
    for _ in range(2000):
        assert (await connection.answer()).status == 200


async def test_a_request_is_answered_even_if_the_next_one_is_malformed(serve):
    server = await serve()
    connection = await server.connect()
    await connection.send(GET + b"no request\r\n\r\n")
    response = await connection.answer()
    assert (response.status, response.closes) == (200, True)
    assert await connection.ends() == b""


async def test_pipelined_requests_are_answered_in_order(serve):
    server = await serve()
    connection = await server.connect()
    await connection.send(GET + GET.replace(b"/a", b"/b") + GET.replace(b"/a", b"/c"))
    assert [json.loads((await connection.answer()).body)["path"] for _ in range(3)] == ["/a", "/b", "/c"]


async def test_a_malformed_body_is_rejected_and_the_application_gets_a_disconnect(serve):
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await whole_body(receive))

    server = await serve(app)
    connection = await server.connect()
    await connection.send(CHUNKED[: -len(b"0\r\n")], b"no chunk\r\n")
    response = await connection.answer()
    assert (response.status, response.closes) == (400, True)
    assert await connection.ends() == b""
    assert bodies == [None]


# ------------------------------------------------------------------ answers before the whole request is there


async def rejecting_app(scope, receive, send):
    await answer(send, 413, {})


def request_with_body(length, *headers):
    lines = [b"POST /a HTTP/1.1", b"Host: x", b"Content-Length: %d" % length, *headers, b"", b""]
    return b"\r\n".join(lines)


@pytest.mark.parametrize(
    "head",
    [
        request_with_body(10_000_000),
        request_with_body(3, b"Expect: 100-continue"),
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["a long body", "a body that waits for a 100", "a body of unknown length"],
)
async def test_an_early_response_ends_the_connection(serve, head):
    server = await serve(rejecting_app)
    connection = await server.connect()
    await connection.send(head)
    response = await connection.answer()
    assert (response.status, response.closes) == (413, True)
    await connection.send(GET)  # by a client that does not check the response
    assert await connection.ends() == b""


async def test_the_client_can_read_an_early_answer_while_it_is_still_sending(serve):
    server = await serve(rejecting_app)
    connection = await server.connect()
    await connection.send(request_with_body(10_000_000))
    for _ in range(50):
        await connection.send(b"x" * 65536)
    response = await connection.answer()
    assert response.status == 413
    assert await connection.ends() == b""  # a reset would raise


async def test_a_short_body_that_comes_after_its_answer_is_dropped_and_the_connection_kept(serve):
    calls = []

    async def app(scope, receive, send):
        calls.append(scope["method"])
        await answer(send, 429, {})

    server = await serve(app)
    connection = await server.connect()
    for _ in range(2):
        await connection.send(request_with_body(3))
        response = await connection.answer()
        assert (response.status, response.closes) == (429, False)
        await connection.send(b"abc")
    await connection.send(GET)
    assert (await connection.answer()).status == 429
    assert calls == ["POST", "POST", "GET"]


# ------------------------------------------------------------------ heads of any size


HEADS = {
    "a long line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a long header": b"GET /a HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": b"GET /a HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 12_000 + b"\r\n",
    "a header without end": b"GET /a HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 8_000_000,
    "long trailers": CHUNKED + b"X: " + b"a" * 8_000_000,
    "many trailers": CHUNKED + b"X: y\r\n" * 100_000,
    "a long chunk extension": CHUNKED.replace(b"\r\n3\r\n", b"\r\n3;x=" + b"a" * 8_000_000),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_a_head_or_trailers_of_more_than_the_limit_are_rejected(serve, head):
    server = await serve()
    connection = await server.connect()
    sending = asyncio.create_task(connection.send(head))
    response = await connection.answer()
    assert (response.status, response.closes) == (431, True)
    assert await connection.ends() == b""
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_head_up_to_the_limit_is_served_with_a_body_of_any_length(serve):
    server = await serve()
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"
    response = await exchange(server.port, head + b"b" * 200_000)
    assert response.status == 200
    assert len(json.loads(response.body)["body"]) == 200_000
