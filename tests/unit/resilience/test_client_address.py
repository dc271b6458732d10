"""The client of a request, whose quota the request counts against."""

import tracemalloc
from ipaddress import ip_network

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from src.api.access.local_peer import is_direct_loopback
from src.resilience.http.client_address import ClientAddress


def scope(peer, *forwarded_for, **headers):
    raw = [(b"x-forwarded-for", value.encode()) for value in forwarded_for]
    raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "client": peer, "headers": raw}


def client(peer, *forwarded_for, trusted=("127.0.0.0/8", "::1/128")):
    networks = [ip_network(network) for network in trusted]
    return ClientAddress(networks).client(scope((peer, 50000), *forwarded_for))


def test_without_a_proxy_the_client_is_the_peer():
    assert client("203.0.113.7") == "203.0.113.7"


def test_an_untrusted_client_cannot_forward_another():
    assert client("203.0.113.7", "198.51.100.1") == "203.0.113.7"


def test_a_trusted_proxy_forwards_its_client():
    assert client("127.0.0.1", "198.51.100.1") == "198.51.100.1"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (("6.6.6.6, 198.51.100.1",), "198.51.100.1"),  # the client wrote the left part itself
        (("6.6.6.6, 198.51.100.1, 10.0.0.2",), "198.51.100.1"),
        (("6.6.6.6", "198.51.100.1", "10.0.0.2"), "198.51.100.1"),  # as several headers
        (("10.0.0.3, 10.0.0.2",), "10.0.0.3"),  # proxies all the way
        (("198.51.100.1, nonsense",), "127.0.0.1"),  # an unreadable value is not trusted
        (("198.51.100.1:4711",), "198.51.100.1"),
        (("[2001:db8::1]:4711",), "2001:db8::/64"),
        (("",), "127.0.0.1"),
        (("198.51.100.1,",), "198.51.100.1"),  # an empty element must not count as the proxy
        (("198.51.100.1, ,\t, 10.0.0.2 ,",), "198.51.100.1"),
        (("198.51.100.1", ""), "198.51.100.1"),
        ((" , ",), "127.0.0.1"),
    ],
)
def test_the_header_is_read_from_the_right_across_trusted_proxies_only(forwarded, expected):
    assert client("127.0.0.1", *forwarded, trusted=("127.0.0.0/8", "10.0.0.0/8")) == expected


def test_ipv6_clients_are_grouped_by_their_64_network():
    assert client("2001:db8:1:2:aaaa::1") == client("2001:db8:1:2:bbbb::2") == "2001:db8:1:2::/64"
    assert client("2001:db8:1:3::1") != client("2001:db8:1:2::1")


def test_an_ipv4_mapped_ipv6_address_is_an_ipv4_address():
    assert client("::ffff:203.0.113.7") == "203.0.113.7"


def test_an_address_that_uvicorn_read_from_a_header_is_not_used_if_loopback_is_not_trusted():
    rewritten = scope(("198.51.100.1", 0), "198.51.100.1")
    assert ClientAddress([ip_network("10.0.0.0/8")]).client(rewritten) == "127.0.0.1"
    assert ClientAddress([ip_network("127.0.0.0/8")]).client(rewritten) == "198.51.100.1"


async def behind_uvicorn(peer, server, forwarded, trusted="10.0.0.0/8"):
    """Return the client under plain uvicorn, which trusts 127.0.0.1."""
    seen = []

    async def app(scope, receive, send):
        seen.append(ClientAddress([ip_network(trusted)]).client(scope))

    given = scope((peer, 50000), forwarded) | {"server": (server, 8000)}
    await ProxyHeadersMiddleware(app)(given, None, None)
    return seen[0]


@pytest.mark.parametrize(
    "claimed", ["198.51.100.1", "198.51.100.1:11", "[2001:db8::1]:11", "junk", "junk:11"]
)
async def test_a_loopback_caller_that_is_not_trusted_cannot_choose_its_address(claimed):
    """uvicorn reads the port from the header too, so a check for port 0 was not enough."""
    assert await behind_uvicorn("127.0.0.1", "127.0.0.1", claimed) == "127.0.0.1"


@pytest.mark.parametrize("claimed", ["203.0.113.7", "203.0.113.7:50000", "127.0.0.1", "198.51.100.1:11"])
async def test_a_remote_peer_cannot_change_its_address_by_a_header(claimed):
    assert await behind_uvicorn("203.0.113.7", "192.0.2.2", claimed) == "203.0.113.7"


@pytest.mark.parametrize("forwarded", ["198.51.100.1:11", "198.51.100.1,", "198.51.100.1, , "])
async def test_a_trusted_proxy_on_loopback_forwards_its_client_under_uvicorn_too(forwarded):
    seen = await behind_uvicorn("127.0.0.1", "127.0.0.1", forwarded, trusted="127.0.0.0/8")
    assert seen == "198.51.100.1"


@pytest.mark.parametrize("peer", ["203.0.113.7", "127.0.0.1"])
def test_long_headers_are_not_cached(peer):
    """Answers were cached by the whole header: 4096 of 60 kB each filled the memory."""
    addresses = ClientAddress([ip_network("127.0.0.0/8")])
    tracemalloc.start()
    try:
        for n in range(200):
            addresses.client(scope((peer, 50000), f"{'x' * 60_000}, 198.51.100.{n}"))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_text_that_is_not_an_address_is_not_part_of_the_clients_name():
    """uvicorn replaces the peer by any text in the header, and the name becomes a key in Redis."""
    assert client("x" * 60_000) == "unknown"
    assert client("fe80::1%" + "x" * 60_000) == "fe80::/64"


def test_a_request_without_a_peer_has_the_name_unknown():
    assert ClientAddress([ip_network("127.0.0.0/8")]).client(scope(None)) == "unknown"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (scope(("127.0.0.1", 5)), True),
        (scope(("::1", 5)), True),
        (scope(("192.0.2.1", 5)), False),
        (scope(("127.0.0.1", 5), "127.0.0.1"), False),
        (scope(("127.0.0.1", 5), forwarded="for=127.0.0.1"), False),
        (scope(("127.0.0.1", 5), x_real_ip="127.0.0.1"), False),
        (scope(None), False),
    ],
)
def test_a_direct_loopback_request_comes_from_this_machine_without_a_proxy(given, expected):
    assert is_direct_loopback(given) is expected
