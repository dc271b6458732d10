"""Who is asking: the peer, or whom a trusted proxy says it speaks for.

`X-Forwarded-For` grows to the right: each proxy appends the peer it saw. So it is read from the right, for
as long as the address at hand is one of our own proxies; what stands left of the first stranger is that
stranger's word, and is not read.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

_IPV6_PREFIX = 64
"""One IPv6 customer has at least a /64; a limit for each address in it would limit nobody."""

FORWARDING_HEADERS = ("x-forwarded-for", "forwarded", "x-real-ip")


class ClientAddress:
    """Reads client addresses.

    Args:
        trusted_proxies: Networks whose `X-Forwarded-For` is believed.
    """

    def __init__(self, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted_proxies = tuple(trusted_proxies)
        self._resolve = lru_cache(maxsize=4096)(self._resolve_uncached)

    def of(self, scope: Scope) -> str:
        """Return the client of a request, as the limiter counts it: an IPv4 address or an IPv6 /64."""
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        return self._resolve(self._peer(scope), forwarded)

    def _peer(self, scope: Scope) -> str:
        host, port = scope.get("client") or ("", 0)
        if port == 0 and not self._trusts_loopback:
            # No TCP peer has port 0. It is uvicorn's own reading of X-Forwarded-For, which it believes of
            # loopback unless run with --no-proxy-headers; we were told not to, so loopback it is.
            return "127.0.0.1"
        return str(host)

    @property
    def _trusts_loopback(self) -> bool:
        return self._is_trusted(IPv4Address("127.0.0.1"))

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted_proxies)

    def _resolve_uncached(self, peer: str, forwarded: str) -> str:
        client = _parse(peer)
        if client is None:
            return peer or "unknown"  # a unix socket's peer, or a test client's
        for hop in reversed(forwarded.split(",") if forwarded else []):
            if not self._is_trusted(client):
                break
            claimed = _parse(hop)
            if claimed is None:
                break
            client = claimed
        if isinstance(client, IPv6Address):
            return str(ip_network((client, _IPV6_PREFIX), strict=False))
        return str(client)


def is_direct_loopback(scope: Scope) -> bool:
    """Return whether the request came from this machine, and through no proxy that says so."""
    client = scope.get("client")
    address = _parse(client[0]) if client else None
    headers = Headers(scope=scope)
    forwarded = any(name in headers for name in FORWARDING_HEADERS)
    return address is not None and address.is_loopback and not forwarded


def _parse(text: str) -> IPv4Address | IPv6Address | None:
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
