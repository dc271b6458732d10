"""The internal proxy: whatever is asked below `/proxy/` is asked of the upstream, at the upstream's pace."""

import re
from typing import Annotated, Literal, cast

import structlog
from fastapi import APIRouter, Path, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from src.api.dependencies import state
from src.api.disconnect import CLIENT_CLOSED_REQUEST, while_client_waits
from src.api.errors import Problem, ProblemError, problem_of
from src.api.models.proxy import ProxyBreaker, ProxyStatusOut
from src.api.openapi import Fragment, Responses, headers, problems, request_headers
from src.observation.log_context import log_fields
from src.resilience.paced_queue import MAX_PRIORITY
from src.services.proxy.headers import Headers, first
from src.services.proxy.response_buffer import Head, ResponseCutError
from src.services.proxy.service import Proxy, ProxyAnswer, ProxyRequest
from src.services.proxy.target import UnsafeTargetError, without

router = APIRouter(tags=["proxy"])

_PREFIX = b"/proxy/"
_CLIENT_ID = b"client-id"
_SANE_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:@/-]{1,128}\Z")

_NOT_A_PAGE_OF_OURS: Headers = (
    (b"content-security-policy", b"sandbox"),
    (b"x-content-type-options", b"nosniff"),
)
"""What the upstream sends comes from the origin of this service's own pages, and must not act as one."""

_log = structlog.stdlib.get_logger(__name__)


class _Anything(PathConvertor):
    """A path that may hold line ends, once decoded: refused as what it is, and not said not to be found."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _Anything())


class _BufferedResponse(Response):
    """An answer that is sent on as it comes in.

    Args:
        answer: Whose buffer is played.
        head: That of the buffer.
    """

    def __init__(self, answer: ProxyAnswer, head: Head) -> None:
        self.status_code = head.status
        self.raw_headers = [*head.headers, *_NOT_A_PAGE_OF_OURS, *_told_by(answer)]
        self.background = None
        self._buffer = answer.buffer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- ASGI
        """Send it. One that breaks off is left unfinished, whereupon the server cuts the connection."""
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
        "description": "What the upstream answered. Its other answers below 500 are passed on as well",
        "content": {"*/*": {}},
        **headers("X-Cache", "X-Queue-Wait-Ms", "Age"),
    }
}
_RESPONSES = _PASSED_ON | problems(
    problem_of(UnsafeTargetError("The path must not hold the segments . and ..")),
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
    "openapi_extra": request_headers("client-id"),
}


# The first to be registered, which is the lowest, answers both methods, so that a 405 names both. The others
# are for the documentation: FastAPI would name the operations of one route alike.
@router.head(summary="Ask the upstream for the head", **_OPERATION)
@router.get(summary="Ask the upstream", **_OPERATION)
@router.api_route(_PATH, methods=["GET", "HEAD"], include_in_schema=False)
async def proxy(
    request: Request,
    path: Annotated[str, Path(description="In the upstream", examples=["get"])],  # noqa: ARG001 -- told raw
    priority: Annotated[
        int,
        Query(
            ge=-MAX_PRIORITY,
            le=MAX_PRIORITY,
            description="Where the line goes by priority: lower is sooner. It is not passed on",
        ),
    ] = 0,
) -> Response:
    """Ask for `path` and the query in the upstream, and pass its answer on as it comes in.

    However many ask, the upstream gets one call an interval, over all workers: the others wait in a bounded
    line (`X-Queue-Wait-Ms`). Equal requests in line share one call, and a 200 is kept a while (`X-Cache`).
    Where the upstream fails or the line is full, the last good answer is sent (`STALE`), if there is one.
    """
    sent = _read(request, priority)
    answer = await while_client_waits(request, state(request)["proxy"].answer(sent))
    if answer is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return _BufferedResponse(answer, await answer.buffer.head())


@router.get("/api/proxy/status", summary="State of the proxy")
async def status(request: Request) -> ProxyStatusOut:
    """Show the line, what became of the requests, and the circuit breaker, as the whole fleet sees them."""
    return await proxy_status(state(request)["proxy"])


async def proxy_status(proxy: Proxy) -> ProxyStatusOut:
    """Return `proxy` as it is shown."""
    status = await proxy.status()
    line, totals, breaker = status.line, status.totals, status.breaker
    return ProxyStatusOut(
        policy=line.policy,
        interval_seconds=status.interval_seconds,
        queue_size=line.size,
        capacity=line.capacity,
        oldest_age_seconds=line.oldest_age_seconds,
        next_turn_seconds=line.next_turn_seconds,
        requests=totals.requests,
        successes=totals.successes,
        failures=totals.failures,
        fallbacks=totals.fallbacks,
        cache_hits=totals.cache_hits,
        mean_latency_ms=totals.mean_latency_ms,
        breaker=ProxyBreaker(state=breaker.state, retry_after=breaker.retry_after),
    )


def _read(request: Request, priority: int) -> ProxyRequest:
    scope = request.scope
    path: bytes = scope["raw_path"].removeprefix(scope.get("root_path", "").encode())
    if not path.startswith(_PREFIX):  # but reads so once it is decoded
        raise ProblemError(Problem(400, "BAD_REQUEST", "The path must begin with /proxy/ as it stands"))
    client_id = first(scope["headers"], _CLIENT_ID) or b""
    is_sane = _SANE_CLIENT_ID.match(client_id)
    if is_sane:
        log_fields.set({**log_fields.get(), "client_id": client_id.decode()})
    return ProxyRequest(
        method=cast("Literal['GET', 'HEAD']", scope["method"]),
        path=path[len(_PREFIX) - 1 :],
        query=without("priority", scope["query_string"]),
        headers=tuple(header for header in scope["headers"] if is_sane or header[0] != _CLIENT_ID),
        request_id=scope["request_id"].encode(),
        priority=priority,
    )


def _told_by(answer: ProxyAnswer) -> Headers:
    told = (
        (b"x-cache", answer.copy.encode()),
        (b"x-queue-wait-ms", b"%d" % (answer.waited_seconds * 1000)),
    )
    if answer.age_seconds is None:
        return told
    return (*told, (b"age", b"%d" % answer.age_seconds))
