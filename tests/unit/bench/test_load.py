"""The requests of the benchmark, and the output of its drivers."""

import asyncio

import pytest

from bench.driver import drive
from bench.load import Load, Request, read_figures
from bench.processes import seconds_of_stat


def test_a_request_is_written_as_http():
    request = Request("POST", "/api/metrics", b'{"type":"\xc3\xa9"}', "application/json")
    head, _, body = request.raw().encode("latin-1").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /api/metrics HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Content-Type: application/json",
        b"Content-Length: 13",
    ]
    assert body == request.body


def test_a_request_without_a_body_has_no_headers_of_a_body():
    assert Request("GET", "/x").raw() == "GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_the_figures_are_the_last_line_that_a_driver_prints():
    printed = (
        "Running 2s test\n  Non-2xx or 3xx responses: 3\n"
        '{"requests":400,"errors":3,"lost":0,"seconds":2.0,"p50_ms":1.5,"p99_ms":9.0}\n'
    )
    load = read_figures(printed)
    assert load == Load(requests=400, errors=3, lost=0, seconds=2.0, p50_ms=1.5, p99_ms=9.0)
    assert load.rate == 200


def test_processor_time_is_read_past_a_name_with_blanks_and_brackets(monkeypatch):
    monkeypatch.setattr("bench.processes._TICKS_A_SECOND", 100)
    before, ticks = "S 1 2 3 0 -1 4194304 9 9 9 9", "150 50 30 20"
    assert seconds_of_stat(f"42 (a) b (c) {before} {ticks} 20 0 1 0") == 2.5


class Server:
    """A server that answers each request, and rejects every third one."""

    def __init__(self):
        self.answered = 0
        self.connections = []

    async def serve(self, reader, writer):
        self.connections.append(asyncio.current_task())
        while await reader.read(1000):
            self.answered += 1
            status = b"429 Too Many Requests" if self.answered % 3 == 0 else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("rate", [None, 400.0])
async def test_the_driver_counts_every_answer_and_every_error(rate):
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        request = Request("GET", "/").raw().encode()
        figures = await drive(request, port, connections=2, seconds=0.1, rate=rate)
        await asyncio.gather(*server.connections)
    assert figures["requests"] == server.answered > 0
    assert figures["errors"] == server.answered // 3
    assert figures["lost"] == 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    if rate is not None:
        assert server.answered <= rate * 0.1
