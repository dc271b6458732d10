"""The server's own error answers: to a request that it rejects, or that the service can't answer in time.

These answers are problem documents, like those of the service. Each of them ends its connection.
"""

import secrets
from collections.abc import Sequence

from src.api.errors import CONTENT_TYPE, Problem, problem_document, status_title

CLOSE_HEADER = (b"connection", b"close")

MALFORMED = Problem(400, "BAD_REQUEST", "The request is not valid HTTP/1.1")
HOST_UNCLEAR = Problem(400, "BAD_REQUEST", "A request needs exactly one Host header")
HEAD_TOO_SLOW = Problem(408, "REQUEST_TIMEOUT", "The request line and the headers did not arrive in time")
HEAD_TOO_LARGE = Problem(431, "HEADERS_TOO_LARGE", "The request line and the headers are too large")
TRANSFER_ENCODING_UNKNOWN = Problem(
    501, "NOT_IMPLEMENTED", "The server supports only the Transfer-Encoding chunked, and only in HTTP/1.1"
)
NO_TUNNEL = Problem(501, "NOT_IMPLEMENTED", "The server does not support CONNECT")
TOO_MANY_CONNECTIONS = Problem(
    503, "TOO_MANY_CONNECTIONS", "This worker has reached its limit of connections", retry_after=1
)
STOPPING = Problem(
    503,
    "STOPPING",
    "This worker is stopping and could not wait for the end of this request. A write may have been stored",
    retry_after=1,
)
VERSION_UNKNOWN = Problem(505, "HTTP_VERSION_NOT_SUPPORTED", "The server supports HTTP/1.1 and HTTP/1.0")


class RefusedRequestError(Exception):
    """The head of a request is not acceptable.

    Args:
        problem: The answer to the client.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def render(problem: Problem, now: float, default_headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head and the body of the answer for `problem`.

    Args:
        problem: The problem.
        now: Unix time in seconds.
        default_headers: The headers of every answer of the server.
    """
    request_id = secrets.token_hex(16)
    body = problem_document(problem, request_id, now)
    headers = [
        *(header for header in default_headers if header != CLOSE_HEADER),
        (b"content-type", CONTENT_TYPE),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        CLOSE_HEADER,
        *problem.raw_headers,
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (
        problem.status,
        status_title(problem.status).encode(),
        lines,
        body,
    )
