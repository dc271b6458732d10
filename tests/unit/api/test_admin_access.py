"""The access to the admin endpoints."""

import pytest
from starlette.requests import Request

from src.api.access.admin_access import AdminAccess, AdminClosedError, AdminKeyError


def request(peer="127.0.0.1", host="localhost:8000", **headers):
    raw = [(b"host", host.encode())]
    raw += [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "client": (peer, 5), "headers": raw})


@pytest.mark.parametrize("peer", ["127.0.0.1", "203.0.113.7"])
def test_with_a_key_set_requests_with_the_key_are_accepted(peer):
    AdminAccess("secret").check(request(peer, x_api_key="secret"))


@pytest.mark.parametrize("headers", [{}, {"x_api_key": "wrong"}, {"x_api_key": ""}, {"x_api_key": "sécret"}])
def test_with_a_key_set_requests_without_the_key_are_rejected(headers):
    with pytest.raises(AdminKeyError):
        AdminAccess("secret").check(request(**headers))


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_set_direct_loopback_clients_are_accepted(key):
    AdminAccess(key).check(request())
    AdminAccess(key).check(request("::1", host="[::1]:8000", origin="http://[::1]:8000"))


@pytest.mark.parametrize(
    "closed",
    [
        request("203.0.113.7"),
        request(x_forwarded_for="127.0.0.1"),
        request(origin="https://evil.example"),  # a page of another origin in a browser on this machine
        request(origin="null"),
        request(host="evil.example"),  # a host name that resolves to loopback
        request(host="["),  # in an earlier version, this and the next two caused a 500
        request(host="localhost\u2100".encode().decode("latin-1")),
        request(origin="http://["),
    ],
)
def test_without_a_key_set_all_other_clients_are_rejected(closed):
    with pytest.raises(AdminClosedError):
        AdminAccess(None).check(closed)
