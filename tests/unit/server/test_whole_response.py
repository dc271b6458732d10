"""A response in one message has the same bytes as a response in two messages."""

import json

import pytest

from src.api.responses.ready_response import WHOLE_RESPONSE, parts_of, whole_response
from src.server.protocol import Exchange
from src.server.refusal import CLOSE_HEADER
from tests.unit.server.conftest import whole_body

HEADERS = [(b"content-length", b"5"), (b"content-type", b"text/plain")]
REQUESTS = {
    "GET": b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "HEAD": b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.0": b"GET /a HTTP/1.0\r\nHost: x\r\n\r\n",
    "the last of a connection": b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.fixture
def whole_responses(monkeypatch):
    """Make the server accept whole responses. With uvicorn's access log, as under pytest, it would not."""
    calls = []
    send = Exchange._send

    async def counted(self, message):
        calls.append(message["type"])
        await send(self, message)

    monkeypatch.setattr(Exchange, "_send", counted)
    return calls


def answering(*, in_parts):
    async def app(scope, receive, send):
        await whole_body(receive)
        body = b"" if scope["method"] == "HEAD" else b"hello"
        message = whole_response(429, HEADERS, body)
        for part in parts_of(message) if in_parts else (message,):
            await send(part)

    return app


async def sent_bytes(server, request):
    """Return the bytes that the server sends until it closes the connection or the body ends."""
    connection = await server.connect()
    for each in server.connections.all():
        each.access_log = False
    await connection.send(request)
    answer = await connection.answer(has_body=not request.startswith(b"HEAD"))
    answer.headers.pop("date", None)
    if answer.closes:
        assert await connection.ends() == b""
    else:  # it is still open
        await connection.send(REQUESTS["GET"])
        assert (await connection.answer()).status == 429
    return answer


@pytest.mark.parametrize("is_stopping", [False, True], ids=["", "stopping"])
@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS)
async def test_a_whole_response_is_sent_like_one_of_two_messages(
    serve, whole_responses, request_bytes, is_stopping
):
    whole, parts = await serve(answering(in_parts=False)), await serve(answering(in_parts=True))
    if is_stopping:
        for server in (whole, parts):
            server.connections.default_headers.append(CLOSE_HEADER)
    assert await sent_bytes(whole, request_bytes) == await sent_bytes(parts, request_bytes)
    assert WHOLE_RESPONSE in whole_responses


async def test_a_whole_response_to_a_request_that_has_not_ended_is_sent(serve):
    async def app(_scope, _receive, send):
        await send(whole_response(429, HEADERS, b"hello"))

    server = await serve(app)
    connection = await server.connect()
    await connection.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", b"abc")
    assert (await connection.answer()).body == b"hello"
    await connection.send(REQUESTS["GET"])
    assert (await connection.answer()).body == b"hello"


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x\r\ny", b"a")]
)
async def test_a_header_with_a_line_break_is_not_sent(serve, whole_responses, header):
    async def app(_scope, _receive, send):
        await send(whole_response(200, [header, *HEADERS], b"hello"))

    server = await serve(app)
    connection = await server.connect()
    for each in server.connections.all():
        each.access_log = False
    await connection.send(REQUESTS["GET"])
    assert (await connection.answer()).status == 500
    assert whole_responses[0] == WHOLE_RESPONSE


async def test_the_server_announces_whole_responses_in_the_scope(serve):
    async def app(scope, _receive, send):
        body = json.dumps(scope["extensions"]).encode()
        await send(whole_response(200, [(b"content-length", b"%d" % len(body))], body))

    server = await serve(app)
    connection = await server.connect()
    await connection.send(REQUESTS["GET"])
    assert json.loads((await connection.answer()).body) == {WHOLE_RESPONSE: {}}
