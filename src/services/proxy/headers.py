"""The headers that the proxy passes on to the upstream and to the caller, and functions that read headers.

Names are in lower case throughout. RFC 9110, section 7.6.1, lists the headers that apply to one connection
only.
"""

from http import HTTPStatus

Headers = tuple[tuple[bytes, bytes], ...]

SHARED_BY = frozenset({b"accept", b"accept-language"})
"""Request headers by which a shared answer may vary. Requests that share an answer are equal in them."""

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

_PERSONAL = frozenset({b"authorization", b"cookie"})
"""Request headers that identify a caller. Other callers must not get the answer."""

_TO_UPSTREAM = SHARED_BY | _PERSONAL | {b"client-id", b"user-agent", b"traceparent", b"tracestate"}
"""All headers that are passed on. An upstream may answer by any header that it receives, such as
`X-Original-URL`, and callers who did not send that header share the answer. So a header is passed on only if
requests that share an answer are equal in it, if it prevents sharing, or if it only names the caller."""

_FROM_UPSTREAM_DROPPED = _HOP_BY_HOP | {
    # set by this service or its server
    b"content-security-policy", b"date", b"server", b"x-cache", b"x-content-type-options", b"x-queue-wait-ms",
    b"x-request-id",
    # apply to a whole origin, and the origin is this service's
    b"accept-ch", b"alt-svc", b"clear-site-data", b"critical-ch", b"nel", b"origin-agent-cluster",
    b"report-to", b"reporting-endpoints", b"service-worker-allowed", b"strict-transport-security",
}  # fmt: skip

_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def headers_for_upstream(headers: Headers, request_id: bytes) -> Headers:
    """Return the headers of a call to the upstream.

    Args:
        headers: All headers of the caller's request.
        request_id: Names the request in the upstream's log.
    """
    own = ((b"accept-encoding", b"identity"), (b"x-request-id", request_id))
    passed_on = _TO_UPSTREAM - listed(headers, b"connection")
    return tuple(header for header in headers if header[0] in passed_on) + own


def headers_for_caller(status: int, headers: Headers) -> Headers:
    """Return the headers of the upstream's answer that are passed on to the caller.

    `Content-Length` is dropped if it is not the length of the body: with a transfer encoding (RFC 9112,
    section 6.3), or with a `status` that allows no body.
    """
    dropped = _FROM_UPSTREAM_DROPPED | listed(headers, b"connection")
    if status in _BODILESS or first(headers, b"transfer-encoding") is not None:
        dropped |= {b"content-length"}
    return without(headers, dropped)


def are_personal(headers: Headers) -> bool:
    """Return whether a request with `headers` carries credentials, so that its answer must not be shared."""
    return any(name in _PERSONAL for name, _ in headers)


def sharing_headers(headers: Headers) -> Headers:
    """Return the `headers` of a request in which all requests that share its answer are equal."""
    return tuple(header for header in headers if header[0] in SHARED_BY)


def without(headers: Headers, names: frozenset[bytes] | set[bytes]) -> Headers:
    """Return `headers` without those of the given names."""
    return tuple(header for header in headers if header[0] not in names)


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first header of that name; None if there is none."""
    return next((value for found, value in headers if found == name), None)


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Return the values of all headers of that name."""
    return [value for found, value in headers if found == name]


def listed(headers: Headers, name: bytes) -> set[bytes]:
    """Return the items, in lower case, of all headers of that name as one list separated by commas."""
    items = b",".join(values(headers, name)).split(b",")
    return {item.strip().lower() for item in items} - {b""}
