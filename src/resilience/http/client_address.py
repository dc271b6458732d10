"""The address of a client: the peer, or the address that a trusted proxy forwards.

Each proxy appends the address of its peer to `X-Forwarded-For`. The header is therefore read from the right,
and reading stops at the first address that is not a trusted proxy. Addresses further left are ignored,
because the client may have sent them.
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
"""An IPv6 customer has at least a /64 and can use any address in it, so each /64 counts as one client."""


class ClientAddress:
    """Determines client addresses.

    Args:
        trusted_proxies: Networks of proxies whose `X-Forwarded-For` is read.
    """

    def __init__(self, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted_proxies = tuple(trusted_proxies)
        self._is_trusted = lru_cache(self._is_trusted_proxy)
        self._trusts_loopback = self._is_trusted(ip_address(_LOOPBACK))

    def client(self, scope: Scope) -> str:
        """Return the client of a request, as the limiter counts it: an IPv4 address or an IPv6 /64.

        Without an address, as on a unix socket, the client is "unknown". The result contains no other text
        that a client sent, so that long headers fill neither this process's memory nor Redis.
        """
        peer = self._peer(scope)
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if not lines:
            return _peer_name(peer)
        address = _parse_peer(peer)
        if address is None:
            return _UNKNOWN
        if self._is_trusted(address):
            address = self._forwarded_address(address, b",".join(lines).decode("latin-1"))
        return _name(address)

    def _peer(self, scope: Scope) -> str:
        """Return the address of the peer of the connection.

        Unless uvicorn runs with --no-proxy-headers, it replaces a peer on 127.0.0.1 by an address from
        X-Forwarded-For, with the port from the header or 0. If the settings do not trust loopback, this
        method restores the peer. Two facts, which no header can change, reveal the replacement: no TCP peer
        has port 0, and only this machine can connect to a loopback address of this machine. The peer's name
        in its own X-Forwarded-For proves nothing: any client can send it, and would then use loopback's
        quota. One case is not detected: a local process that binds 127.0.0.1 and connects to another address
        of the machine. It gains nothing, because it can use every address in 127.0.0.0/8 anyway.
        """
        host, port = scope.get("client") or ("", 0)
        if not self._trusts_loopback and (port == 0 or is_loopback(scope.get("server"))):
            return _LOOPBACK
        return host

    def _is_trusted_proxy(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted_proxies)

    def _forwarded_address(self, peer: _Address, forwarded_for: str) -> _Address:
        """Return the last address before the trusted proxies."""
        address = peer
        for hop in reversed(forwarded_for.split(",")):
            if not hop.strip():
                continue  # an empty list element has no meaning (RFC 9110, section 5.6.1.2)
            parsed = _parse(hop)
            if parsed is None:
                break
            address = parsed
            if not self._is_trusted(address):
                break
        return address


def _name(address: _Address) -> str:
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def is_loopback(endpoint: tuple[str, int | None] | None) -> bool:
    """Return whether `endpoint`, an address and a port, is on loopback."""
    address = _parse_peer(endpoint[0]) if endpoint else None
    return address is not None and address.is_loopback


# The same few peers send all requests, so their parsed addresses are cached.


@lru_cache
def _peer_name(text: str) -> str:
    address = _parse_peer(text)
    return _name(address) if address else _UNKNOWN


@lru_cache
def _parse_peer(text: str) -> _Address | None:
    return _parse(text)


def _parse(text: str) -> _Address | None:
    """Parse an address in a form that proxies write.

    The forms are `1.2.3.4`, `1.2.3.4:5678`, `2001:db8::1` and `[2001:db8::1]:5678`.
    """
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
