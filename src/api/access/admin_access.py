"""Access to the admin endpoints: with the admin key or, if no key is set, directly from this machine."""

import hmac
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request

from src.api.access.local_peer import is_direct_loopback

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class AdminKeyError(Exception):
    """The request has no admin key, or a wrong one."""


class AdminClosedError(Exception):
    """No admin key is set, and the request did not come directly from this machine."""


class AdminAccess:
    """Decides which requests may use the admin endpoints.

    Args:
        key: The admin key; None if no key is set.
    """

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key else None

    def check(self, request: Request) -> None:
        """Return if `request` may use the admin endpoints.

        Raises:
            AdminKeyError: A key is set, and the request does not carry it.
            AdminClosedError: No key is set, and the request did not come directly from this machine.
        """
        if self._key is not None:
            sent_key = request.headers.get("x-api-key", "").encode("latin-1")
            if not hmac.compare_digest(sent_key, self._key):
                raise AdminKeyError
        elif not is_direct_loopback(request.scope) or _is_from_foreign_page(request.headers):
            raise AdminClosedError


def _is_from_foreign_page(headers: Headers) -> bool:
    """Return whether a web page of another site may have made the request.

    Every request of a browser on this machine comes from loopback. The headers identify the page: a page of
    another site sends its own `Origin`. If the site's name resolves to loopback, the page sends that name as
    `Host`.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    try:
        is_loopback_name = urlsplit(f"//{host}").hostname in _LOOPBACK_NAMES
        return not is_loopback_name or (origin is not None and urlsplit(origin).netloc != host)
    except ValueError:  # browsers send headers that can be parsed, so reject the request
        return True


async def _require_admin(request: Request) -> None:
    access: AdminAccess = request.scope["state"]["admin_access"]
    access.check(request)


RequireAdmin = Depends(_require_admin)
"""The dependency of a route that only admins may use."""
