"""Which headers a proxy passes on, and what they say about sharing an answer.

Names are in lower case throughout. RFC 9110, section 7.6.1, for the headers that end at each hop; RFC 9111,
sections 3 and 4.1, for what a shared cache may keep.
"""

from http import HTTPStatus

Headers = tuple[tuple[bytes, bytes], ...]

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

_SHARED_BY = frozenset({b"accept", b"accept-language"})
"""Request headers that tell shared answers apart."""

_PERSONAL = frozenset({b"authorization", b"cookie"})
"""Request headers that make the answer nobody else's."""

_TO_UPSTREAM = _SHARED_BY | _PERSONAL | {b"client-id", b"user-agent", b"traceparent", b"tracestate"}
"""All that goes out. An upstream may answer by any header it gets, such as `X-Original-URL`, and the answer
is shared with callers who did not send it. So what neither tells answers apart nor keeps them from being
shared stays here, but for what only says who asks."""

_KEPT_FROM_CALLER = _HOP_BY_HOP | {
    # set by this service or its server
    b"age", b"content-security-policy", b"date", b"server", b"x-cache", b"x-content-type-options",
    b"x-queue-wait-ms", b"x-request-id",
    # speak for a whole origin, and the origin is this service's
    b"accept-ch", b"alt-svc", b"clear-site-data", b"critical-ch", b"nel", b"origin-agent-cluster",
    b"report-to", b"reporting-endpoints", b"service-worker-allowed", b"strict-transport-security",
}  # fmt: skip

_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def for_upstream(headers: Headers, request_id: bytes) -> Headers:
    """Return what of a request's `headers` goes to the upstream, with `request_id` to name it there."""
    own = ((b"accept-encoding", b"identity"), (b"connection", b"close"), (b"x-request-id", request_id))
    passed_on = _TO_UPSTREAM - _listed(headers, b"connection")
    return tuple(header for header in headers if header[0] in passed_on) + own


def for_caller(status: int, headers: Headers) -> Headers:
    """Return what of an answer's `headers` goes to the caller.

    Among them is no `Content-Length` where something else says how long the body is: its transfer encoding
    (RFC 9112, section 6.3), or a `status` that has none.
    """
    kept = _KEPT_FROM_CALLER | _listed(headers, b"connection")
    if status in _BODILESS or first(headers, b"transfer-encoding") is not None:
        kept |= {b"content-length"}
    return tuple(header for header in headers if header[0] not in kept)


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


def _directives(headers: Headers) -> set[bytes]:
    """Return the names of the Cache-Control directives. One that has fields to it counts like one without."""
    return {directive.partition(b"=")[0].strip() for directive in _listed(headers, b"cache-control")}


def _listed(headers: Headers, wanted: bytes) -> set[bytes]:
    values = b",".join(value for name, value in headers if name == wanted)
    return {item.strip().lower() for item in values.split(b",")} - {b""}
