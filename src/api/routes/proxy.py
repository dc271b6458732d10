"""The internal proxy: it passes requests below `/proxy/` on to the upstream, one call per interval."""

import re
from typing import Annotated, Literal, cast

import structlog
from fastapi import APIRouter, Path, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from src.api.dependencies import state
from src.api.disconnect import CLIENT_CLOSED_REQUEST, while_client_waits
from src.api.errors import Problem, ProblemError, error_problem
from src.api.models.proxy import ProxyStatusOut
from src.api.openapi import Fragment, Responses, headers, problems, request_headers
from src.observation.log_context import log_fields
from src.resilience.paced_queue.policy import MAX_PRIORITY
from src.services.proxy.headers import Headers, first
from src.services.proxy.response_buffer import Head, ResponseCutError
from src.services.proxy.service import ProxyAnswer, ProxyRequest
from src.services.proxy.target import UnsafeTargetError, without_parameter

router = APIRouter(tags=["proxy"])

_PREFIX = b"/proxy/"
_CLIENT_ID = b"client-id"
_VALID_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:@/-]{1,128}\Z")

_SANDBOX: Headers = (
    (b"content-security-policy", b"sandbox"),
    (b"x-content-type-options", b"nosniff"),
)
"""Headers of every answer. The upstream's pages come from the origin of this service's own pages, and must
not act as one of them."""

_log = structlog.stdlib.get_logger(__name__)


class _AnyPath(PathConvertor):
    """A path that may contain line breaks after decoding. The proxy rejects such a path as a bad request."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _AnyPath())


class _BufferedResponse(Response):
    """A response whose body is sent while it arrives from the upstream.

    Args:
        answer: The answer of the proxy.
        head: The head of the answer.
    """

    def __init__(self, answer: ProxyAnswer, head: Head) -> None:
        self.status_code = head.status
        self.raw_headers = [*head.headers, *_SANDBOX, *_proxy_headers(answer)]
        self.background = None
        self._buffer = answer.buffer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- ASGI
        """Send the response. If the upstream's answer is incomplete, the server closes the connection."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        try:
            async for chunk in self._buffer.body():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ResponseCutError as error:
            _log.warning("proxy_answer_cut", reason=str(error))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


_PASSED_ON: Responses = {
    200: {
        "description": "The upstream's answer. Answers with any other status below 500 are passed on too",
        "content": {"*/*": {}},
        **headers("X-Cache", "X-Queue-Wait-Ms", "Age"),
    }
}
_RESPONSES = _PASSED_ON | problems(
    error_problem(UnsafeTargetError("The path must not contain the segments . and ..")),
    "VALIDATION_ERROR",
    "UPSTREAM_ANSWER_TOO_LARGE",
    "QUEUE_FULL",
    "QUEUE_CLOSED",
    "QUEUE_TIMEOUT",
    "CIRCUIT_OPEN",
    "EXTERNAL_SERVICE_UNAVAILABLE",
)
_PATH = "/proxy/{path:anything}"
_OPERATION: Fragment = {
    "path": _PATH,
    "response_class": Response,
    "responses": _RESPONSES,
    "openapi_extra": request_headers("client-id", "Cache-Control"),
}


# The lowest decorator registers its route first. That route handles both methods, so that a 405 lists both.
# The other two routes are for the documents only: FastAPI gives all operations of one route the same id.
@router.head(summary="Request a head from the upstream", **_OPERATION)
@router.get(summary="Request an answer from the upstream", **_OPERATION)
@router.api_route(_PATH, methods=["GET", "HEAD"], include_in_schema=False)
async def proxy(
    request: Request,
    path: Annotated[str, Path(description="Path in the upstream", examples=["get"])],  # noqa: ARG001 -- raw
    priority: Annotated[
        int,
        Query(
            ge=-MAX_PRIORITY,
            le=MAX_PRIORITY,
            description="With the policy priority, a lower number is served sooner. It is not passed on",
        ),
    ] = 0,
) -> Response:
    """Pass a request with this path and query on to the upstream, and send its answer while it arrives.

    All workers together make at most one call per interval. The other calls wait in a bounded queue
    (`X-Queue-Wait-Ms`). Equal requests in the queue share one call, and a copy of each 200 is kept for a
    limited time (`X-Cache`). If the upstream fails or the queue is full, the answer is the last copy
    (`STALE`), if there is one.
    """
    proxy_request = _proxy_request(request, priority)
    answer = await while_client_waits(request, state(request)["proxy"].answer(proxy_request))
    if answer is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return _BufferedResponse(answer, await answer.buffer.head())


@router.get("/api/proxy/status", summary="State of the proxy")
async def status(request: Request) -> ProxyStatusOut:
    """Return the state of the queue and the breaker, and the results of all requests, over all workers."""
    return ProxyStatusOut.from_status(await state(request)["proxy"].status())


def _proxy_request(request: Request, priority: int) -> ProxyRequest:
    """Return `request` as a `ProxyRequest`, and add its client id to the log lines."""
    scope = request.scope
    path: bytes = scope["raw_path"].removeprefix(scope.get("root_path", "").encode())
    if not path.startswith(_PREFIX):  # the route matched the decoded path
        raise ProblemError(
            Problem(400, "BAD_REQUEST", "The path must begin with /proxy/ before it is decoded")
        )
    client_id = first(scope["headers"], _CLIENT_ID) or b""
    is_valid = _VALID_CLIENT_ID.match(client_id)
    if is_valid:
        log_fields.set({**log_fields.get(), "client_id": client_id.decode()})
    return ProxyRequest(
        method=cast("Literal['GET', 'HEAD']", scope["method"]),
        path=path[len(_PREFIX) - 1 :],
        query=without_parameter("priority", scope["query_string"]),
        headers=tuple(header for header in scope["headers"] if is_valid or header[0] != _CLIENT_ID),
        request_id=scope["request_id"].encode(),
        priority=priority,
    )


def _proxy_headers(answer: ProxyAnswer) -> Headers:
    """Return the headers that the proxy adds to an answer."""
    added = (
        (b"x-cache", answer.source.encode()),
        (b"x-queue-wait-ms", b"%d" % (answer.waited_seconds * 1000)),
    )
    if answer.age_seconds is None:
        return added
    return (*added, (b"age", b"%d" % answer.age_seconds))
