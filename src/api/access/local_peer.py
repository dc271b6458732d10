"""Whether a request comes from this machine itself."""

from starlette.types import Scope

from src.api.header import header
from src.resilience.http.client_address import is_loopback

FORWARDING_HEADERS = (b"x-forwarded-for", b"forwarded", b"x-real-ip")


def is_direct_loopback(scope: Scope) -> bool:
    """Return whether the request came from this machine, and not through a proxy that adds headers."""
    forwarded = any(header(scope, name) is not None for name in FORWARDING_HEADERS)
    return is_loopback(scope.get("client")) and not forwarded
