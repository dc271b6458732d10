"""The address of a client: the peer, or the address that a trusted proxy forwards.

`X-Forwarded-For` grows to the right: each proxy appends the peer it saw. So it is read from the right, for
as long as the address at hand is one of our own proxies; what stands left of the first stranger is that
stranger's word, and is not read.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

Scope: TypeAlias = Mapping[str, Any]
"""The scope of an ASGI connection."""

_Address = IPv4Address | IPv6Address

_LOOPBACK = "127.0.0.1"
_UNKNOWN = "unknown"

_IPV6_PREFIX = 64
"""One IPv6 customer has at least a /64, so a limit for each address in it would have no effect."""


class ClientAddress:
    """Reads client addresses.

    Args:
        trusted_proxies: Networks whose `X-Forwarded-For` is read.
    """

    def __init__(self, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted_proxies = tuple(trusted_proxies)
        self._is_trusted = lru_cache(self._is_one_of_ours)
        self._trusts_loopback = self._is_trusted(ip_address(_LOOPBACK))

    def of(self, scope: Scope) -> str:
        """Return the client of a request, as the limiter counts it: an IPv4 address or an IPv6 /64.

        "unknown" where there is no address, as on a unix socket. What a client sent is never kept, and never
        part of the name unless it is an address, so that long headers fill neither our memory nor Redis'.
        """
        peer = self._peer(scope)
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if not lines:
            return _name_of_end(peer)
        client = _parse_end(peer)
        if client is None:
            return _UNKNOWN
        if self._is_trusted(client):
            client = self._spoken_for(client, b",".join(lines).decode("latin-1"))
        return _name(client)

    def _peer(self, scope: Scope) -> str:
        """Return the address at the other end of the connection.

        Of a peer on 127.0.0.1, uvicorn believes X-Forwarded-For, unless run with --no-proxy-headers, and
        has put an address out of it, and its port or else 0, in the peer's place before we see the request.
        Where we were told not to trust loopback, that is undone by two signs that no header can give: no TCP
        peer has port 0, and only this machine reaches a loopback address of this machine. That the peer is
        named in its own X-Forwarded-For is no sign: anybody can write that, and would leave its own quota
        for loopback's. What slips through is a local process that binds 127.0.0.1 and connects to another
        address of the machine; it gains nothing, since it may be anyone in 127.0.0.0/8 as it is.
        """
        host, port = scope.get("client") or ("", 0)
        if not self._trusts_loopback and (port == 0 or is_loopback(scope.get("server"))):
            return _LOOPBACK
        return host

    def _is_one_of_ours(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted_proxies)

    def _spoken_for(self, client: _Address, forwarded: str) -> _Address:
        for hop in reversed(forwarded.split(",")):
            if not hop.strip():
                continue  # an empty list element means nothing (RFC 9110, section 5.6.1.2)
            claimed = _parse(hop)
            if claimed is None:
                break
            client = claimed
            if not self._is_trusted(client):
                break
        return client


def _name(client: _Address) -> str:
    return str(
        ip_network((client, _IPV6_PREFIX), strict=False) if isinstance(client, IPv6Address) else client
    )


def is_loopback(end: tuple[str, int | None] | None) -> bool:
    """Return whether one end of a connection, an address and a port, is on this machine's loopback."""
    address = _parse_end(end[0]) if end else None
    return address is not None and address.is_loopback


# Few connections exist at a time, and each request of a connection looks the same address up.


@lru_cache
def _name_of_end(text: str) -> str:
    address = _parse_end(text)
    return _name(address) if address else _UNKNOWN


@lru_cache
def _parse_end(text: str) -> _Address | None:
    return _parse(text)


def _parse(text: str) -> _Address | None:
    """Read an address as proxies write it: `1.2.3.4`, `1.2.3.4:5678`, `2001:db8::1`, `[2001:db8::1]:5678`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
