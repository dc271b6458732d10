"""The URLs that the proxy may call: they are on the upstream's host, and below its base path.

A path is passed on as it was sent, because decoding and encoding it again could change its meaning. So this
module checks the path as the most lenient upstream would read it: percent-decoded until decoding changes
nothing, which must be the case after `MAX_ENCODINGS` times. A path that could then leave the upstream is
rejected, and not repaired (RFC 3986, sections 3.3 and 5.2.4).
"""

import re
from urllib.parse import unquote_plus, unquote_to_bytes

import httpx

MAX_ENCODINGS = 4
"""The largest number of percent-encodings of a path. Each decoding reads the whole path."""

_VISIBLE = re.compile(rb"[!-~]*\Z")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_SCHEME = re.compile(rb"/[A-Za-z][A-Za-z0-9+.-]*:")


class UnsafeTargetError(ValueError):
    """The path leads out of the upstream, or is not allowed in a request line. The message has the reason."""


class UpstreamTarget:
    """Makes URLs of one upstream.

    Args:
        base_url: Scheme, host, port and, optionally, a base path of the upstream.
    """

    def __init__(self, base_url: str) -> None:
        self._base = httpx.URL(base_url)
        self._base_path = self._base.raw_path.partition(b"?")[0].rstrip(b"/")

    def url(self, path: bytes, query: bytes = b"") -> httpx.URL:
        """Return the URL of `path` below the base path. Scheme, host and port are always the upstream's.

        Args:
            path: The path as it was sent, still percent-encoded; begins with a slash.
            query: The query as it was sent, without its question mark.

        Raises:
            UnsafeTargetError: The path tries to leave the upstream.
        """
        if not (_VISIBLE.match(path) and _VISIBLE.match(query)) or b"?" in path or b"#" in path + query:
            raise UnsafeTargetError("The path and the query must be visible ASCII, all else percent-encoded")
        _reject_leaving(path)
        try:
            return self._base.copy_with(raw_path=self._base_path + path + (query and b"?" + query))
        except httpx.InvalidURL as error:
            raise UnsafeTargetError("The path and the query are too long") from error


def without_parameter(name: str, query: bytes) -> bytes:
    """Return `query` without the parameter `name`. The other parameters keep their order and encoding."""
    parts = query.split(b"&")
    return b"&".join(
        part for part in parts if unquote_plus(part.partition(b"=")[0].decode("latin-1")) != name
    )


def _reject_leaving(path: bytes) -> None:
    decoded = _fully_decoded(path)
    if _CONTROL.search(decoded):
        raise UnsafeTargetError("The path must not hold control characters")
    if b"\\" in decoded:
        raise UnsafeTargetError("The path must not hold backslashes")
    if decoded.count(b"/") != path.count(b"/"):
        raise UnsafeTargetError("The path must not hold encoded slashes")
    if decoded.startswith(b"//") or _SCHEME.match(decoded):
        raise UnsafeTargetError("The path must be a path of the upstream, not a URL")
    # Some servers read the part after a semicolon as parameters of the segment, and treat "..;x" like "..".
    if any(segment.partition(b";")[0] in {b".", b".."} for segment in decoded.split(b"/")):
        raise UnsafeTargetError("The path must not hold the segments . and ..")


def _fully_decoded(path: bytes) -> bytes:
    for _ in range(MAX_ENCODINGS + 1):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return path
        path = decoded
    raise UnsafeTargetError(f"The path must not be percent-encoded more than {MAX_ENCODINGS} times")
