"""Which headers a proxy passes on, and what they say about sharing an answer.

Names are in lower case throughout. RFC 9110, section 7.6.1, for the headers that end at each hop; RFC 9111,
sections 3 and 4.1, for what a shared cache may keep.
"""

from collections.abc import Iterable

Headers = tuple[tuple[bytes, bytes], ...]

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

_KEPT_FROM_UPSTREAM = _HOP_BY_HOP | {
    # for this service alone, or set by it
    b"host", b"x-api-key", b"x-request-id", b"accept-encoding",
    # the answer is shared with callers who did not say so
    b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range",
    # about a body, which is not passed on
    b"content-encoding", b"content-length", b"content-type", b"expect",
    # who speaks for whom is the business of this service's own proxies
    b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
    b"x-forwarded-proto", b"x-real-ip",
    # would make it another method than the one that was asked for
    b"x-http-method", b"x-http-method-override", b"x-method-override",
}  # fmt: skip

_KEPT_FROM_CALLER = _HOP_BY_HOP | {
    # set by this service or its server
    b"age", b"content-security-policy", b"date", b"server", b"x-cache", b"x-content-type-options",
    b"x-queue-wait-ms", b"x-request-id",
    # speak for a whole origin, and the origin is this service's
    b"alt-svc", b"clear-site-data", b"service-worker-allowed", b"strict-transport-security",
}  # fmt: skip

_SHARED_BY = frozenset({b"accept", b"accept-language"})
"""Request headers that tell shared answers apart."""

_PERSONAL = frozenset({b"authorization", b"cookie"})


def for_upstream(headers: Headers, request_id: bytes) -> Headers:
    """Return what of a request's `headers` goes to the upstream, with `request_id` to name it there."""
    own = ((b"accept-encoding", b"identity"), (b"x-request-id", request_id))
    return _end_to_end(headers, _KEPT_FROM_UPSTREAM) + own


def for_caller(headers: Headers) -> Headers:
    """Return what of an answer's `headers` goes to the caller."""
    return _end_to_end(headers, _KEPT_FROM_CALLER)


def are_personal(headers: Headers) -> bool:
    """Return whether a request with `headers` speaks for somebody, so that its answer is nobody else's."""
    return any(name in _PERSONAL for name, _ in headers)


def told_apart_by(headers: Headers) -> Headers:
    """Return those of a request's `headers` in which requests that share an answer are equal."""
    return tuple(header for header in headers if header[0] in _SHARED_BY)


def may_be_shared(headers: Headers) -> bool:
    """Return whether an answer with `headers` is for everybody who asked the same."""
    varies = _listed(headers, b"vary") - _SHARED_BY - {b"accept-encoding"}  # of which only one is ever sent
    names = {name for name, _ in headers}
    return not varies and b"set-cookie" not in names and b"private" not in _directives(headers)


def may_be_kept(headers: Headers) -> bool:
    """Return whether an answer with `headers` may be shared, and with those who ask later as well."""
    return may_be_shared(headers) and not _directives(headers) & {b"no-store", b"no-cache"}


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first header of that name, None where there is none."""
    return next((value for found, value in headers if found == name), None)


def _end_to_end(headers: Headers, kept: Iterable[bytes]) -> Headers:
    dropped = _listed(headers, b"connection").union(kept)
    return tuple(header for header in headers if header[0] not in dropped)


def _directives(headers: Headers) -> set[bytes]:
    """Return the names of the Cache-Control directives. One that has fields to it counts like one without."""
    return {directive.partition(b"=")[0].strip() for directive in _listed(headers, b"cache-control")}


def _listed(headers: Headers, wanted: bytes) -> set[bytes]:
    values = b",".join(value for name, value in headers if name == wanted)
    return {item.strip().lower() for item in values.split(b",")} - {b""}
