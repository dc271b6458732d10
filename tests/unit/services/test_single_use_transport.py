"""The transport with one connection for each call."""

import asyncio
import ssl
from contextlib import suppress

import httpcore
import httpx
import pytest

from src.services.single_use_transport import SingleUseTransport
from tests.support.certificate import make_certificate

HI = b"GET /hi HTTP/1.1\r\n"


@pytest.fixture
def tls(tmp_path):
    """Return the TLS contexts of a server and of a client that trusts it."""
    key, certificate = make_certificate(tmp_path)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)
    return server_side, ssl.create_default_context(cafile=certificate)


class Connection(httpcore.AsyncMockStream):
    """A connection whose writes fail, and that has already received a response."""

    async def write(self, buffer, timeout=None):
        raise httpcore.WriteError("reset")


async def test_bytes_before_the_end_of_the_request_are_not_a_response(monkeypatch):
    async def connect(*_args):
        return Connection([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"])

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    async with httpx.AsyncClient(transport=SingleUseTransport()) as client:
        with pytest.raises(httpx.TransportError, match="could not be sent whole"):
            await client.get("http://upstream.example/a")


async def test_a_response_that_is_too_long_is_cut_over_tls_too(tls, monkeypatch):
    server_side, client_side = tls
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: client_side)

    async def flood(reader, writer):
        if await reader.readline() == HI:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0, ssl=server_side)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, httpx.AsyncClient(transport=SingleUseTransport(), timeout=None) as client:
        assert (await client.get(f"{url}/hi")).text == "hi"
        with pytest.raises(httpx.TransportError, match="no answer within"):
            await client.get(f"{url}/flood")
