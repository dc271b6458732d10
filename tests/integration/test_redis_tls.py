"""A Redis with TLS and a password: redis-py opens the connection, and the project's protocol uses it."""

import asyncio
import socket
import subprocess

import pytest
import uvloop

from src.resilience.clock import SystemClock
from src.services.errors import StorageUnavailableError
from src.storage.redis.embedded.server_binary import find_redis_server
from src.storage.redis.link import RedisAddress, RedisLink, connect
from tests.support.certificate import make_certificate


@pytest.fixture
def address(tmp_path):
    """Run a redis-server that accepts only TLS and requires a password, and yield its URL."""
    server = find_redis_server()
    if server is None:
        pytest.skip("no redis-server")
    key, certificate = make_certificate(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [server, "--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate,
         "--tls-key-file", key, "--tls-auth-clients", "no", "--requirepass", "secret",
         "--save", "", "--dir", tmp_path],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "Ready to accept connections" in line:
            break
    else:
        process.communicate()
        pytest.skip("this redis-server is built without TLS")
    yield f"rediss://:secret@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    process.kill()
    process.communicate()


async def store_a_point_over_tls(address):
    link = RedisLink(connect(RedisAddress(address)), SystemClock())
    try:
        await link.send("SET", "large", b"x" * 1_000_000)
        assert await asyncio.gather(*(link.send("ECHO", str(n)) for n in range(50))) == [
            str(n).encode() for n in range(50)
        ]
        assert len(await link.send("GET", "large")) == 1_000_000
        await link.send("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
        await asyncio.sleep(0.05)
        assert await link.send("ECHO", "again") == b"again"
    finally:
        await link.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_encrypted_connection_works_and_is_opened_again(address, run):
    run(store_a_point_over_tls(address))


async def test_a_wrong_password_is_an_outage_and_is_not_revealed(address, caplog):
    link = RedisLink(connect(RedisAddress(address.replace("secret", "guess"))), SystemClock())
    with pytest.raises(StorageUnavailableError) as error:
        await link.send("PING")
    await link.aclose()
    assert "guess" not in f"{error.value} {caplog.text}"
