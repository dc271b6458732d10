"""Access to the admin endpoints: by the admin key, or, where none is set, directly from this machine."""

import hmac
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request

from src.api.local_peer import is_direct_loopback

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class AdminKeyError(Exception):
    """The key is missing or wrong."""


class AdminClosedError(Exception):
    """No key is set and the caller is not a direct one on loopback."""


class AdminAccess:
    """The rule of the admin endpoints.

    Args:
        key: The admin key, None when none is set.
    """

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key else None

    def check(self, request: Request) -> None:
        """Return if `request` may go on.

        Raises:
            AdminKeyError: A key is set, and the request does not have it.
            AdminClosedError: No key is set, and the request did not come directly from this machine.
        """
        if self._key is not None:
            given = request.headers.get("x-api-key", "").encode("latin-1")
            if not hmac.compare_digest(given, self._key):
                raise AdminKeyError
        elif not (is_direct_loopback(request.scope) and _is_no_foreign_page(request.headers)):
            raise AdminClosedError


def _is_no_foreign_page(headers: Headers) -> bool:
    """Return whether the request was made by no web page of another site.

    A browser on this machine is a loopback caller, whichever page sends the request. A page of another site
    shows in a foreign `Origin`, or, if its name resolves to loopback, in a `Host` that is not ours.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    try:
        is_ours = urlsplit(f"//{host}").hostname in _LOOPBACK_NAMES
        return is_ours and (origin is None or urlsplit(origin).netloc == host)
    except ValueError:  # no browser sends a header that cannot be parsed
        return False


async def _require_admin(request: Request) -> None:
    access: AdminAccess = request.scope["state"]["admin_access"]
    access.check(request)


RequireAdmin = Depends(_require_admin)
"""The dependency of a route that is for admins only."""
