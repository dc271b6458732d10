"""Parts for FastAPI applications: a rate limit as a dependency, responses to rejections, and a lifespan.

::

    app = FastAPI(lifespan=closing_lifespan(queue, client))
    add_resilience(app)
    limit = RequestLimit(memory_rate_limiter("sliding_window_log", Quota(10, 60), clock), name="orders")

    @app.post("/orders", dependencies=[Depends(limit)])
    async def create_order() -> Order: ...

`add_resilience` answers every `ResilienceError` that a route raises as `application/problem+json` (RFC 9457):

======================================== ====== ==========================================================
error                                    status `code`
======================================== ====== ==========================================================
`RateLimitedError`                       429    `RATE_LIMIT_EXCEEDED`
`CircuitOpenError`                       503    `CIRCUIT_OPEN`
`BulkheadFullError`                      503    `BULKHEAD_FULL`
`QueueFullError`, `QueueClosedError`     503    `QUEUE_FULL`, `QUEUE_CLOSED`
any other                                503    `SERVICE_UNAVAILABLE`
`QueueTimeoutError`, `CallTimeoutError`  504    `QUEUE_TIMEOUT`, `CALL_TIMEOUT`
======================================== ====== ==========================================================

Each response has a `Retry-After` of whole seconds, at least 1. No response names the service that failed.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Protocol, TypeAlias

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .clock import Clock, SystemClock
from .errors import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    QueueClosedError,
    QueueFullError,
    QueueTimeoutError,
    RateLimitedError,
    ResilienceError,
)
from .http.client_address import ClientAddress
from .rate_limiter.headers import QuotaHeaders
from .rate_limiter.options import check_cost
from .rate_limiter.store import Decision, RateLimiter

KeyFunction: TypeAlias = Callable[[Request], str]
"""Returns the key of the quota that a request counts against, such as its client."""

_DECISIONS = "standfast.decisions"
_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"


def client_address(request: Request) -> str:
    """Return the address of the connection's other end: an IPv4 address or an IPv6 /64.

    No header is read, so a client cannot choose the result. Behind a proxy, all clients have the address of
    the proxy. Use `client_address_behind` there.
    """
    return _PEER.client(request.scope)


def client_address_behind(*trusted_proxies: str) -> KeyFunction:
    """Return a function that reads `X-Forwarded-For`, but only the part written by trusted proxies.

    Args:
        trusted_proxies: Addresses or networks of the proxies, such as "10.0.0.0/8"; at least one.

    Raises:
        ValueError: No proxy is given, or one is not an address or a network.
    """
    if not trusted_proxies:
        raise ValueError("trusted_proxies must be at least one network")
    networks: Sequence[IPv4Network | IPv6Network] = [ip_network(proxy) for proxy in trusted_proxies]
    addresses = ClientAddress(networks)
    return lambda request: addresses.client(request.scope)


_PEER = ClientAddress(())


@dataclass(frozen=True, slots=True)
class _LimitDecision:
    name: str
    headers: QuotaHeaders
    decision: Decision
    made_at: float


class RequestLimit:
    """A dependency that counts each request against the quota of its client.

    Every response to a counted request, except the 500 of an error that no handler catches, has the headers
    `RateLimit-Policy`, `RateLimit` and `X-RateLimit-*`.
    If several limits apply to a request, `X-RateLimit-*` describes the limit with the fewest units left. A
    rejected request takes no units. If the limiter has several quotas, the headers describe the quota that
    limits most. If the store of the limiter fails, the route raises its error, unless the limiter has a
    failover store.

    Args:
        limiter: Keeps the quotas.
        name: The name of the quota in headers and errors: printable ASCII without quotes and backslashes. It
            separates the counts from those of other limits in the same store.
        key: Returns the key of the quota that a request counts against.
        cost: Units that a request takes, from 1 to the smallest limit.
        clock: The time of day for `X-RateLimit-Reset`; None for the system clock.

    Raises:
        ValueError: The name or the cost is out of its range.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        name: str = "default",
        key: KeyFunction = client_address,
        cost: int = 1,
        clock: Clock | None = None,
    ) -> None:
        check_cost(limiter.quotas, cost)
        self.name = name
        self._limiter = limiter
        self._headers = QuotaHeaders(name, limiter.quotas[0])
        self._key = key
        self._cost = cost
        self._clock = clock or SystemClock()

    async def __call__(self, request: Request) -> Decision:
        """Count `request`, and return the limiter's decision.

        Raises:
            RateLimitedError: The quota is spent.
            RuntimeError: `add_resilience` was not called.
        """
        decisions: list[_LimitDecision] | None = request.scope.get(_DECISIONS)
        if decisions is None:
            raise RuntimeError("call add_resilience(app), which sends the headers of the limit")
        key = f"{self.name}:{self._key(request)}"
        decision = self._limiter.refusal(key, self._cost) or await self._limiter.hit(key, self._cost)
        if decision.quota is not self._headers.quota:
            self._headers = QuotaHeaders(self.name, decision.quota)
        decisions.append(_LimitDecision(self.name, self._headers, decision, self._clock.now()))
        if not decision.allowed:
            raise RateLimitedError(self.name, "the quota is spent", decision.retry_after)
        return decision


def add_resilience(app: FastAPI, *, default_retry_seconds: float = 30.0) -> None:
    """Add the responses to rejections and the headers of the limits to `app`.

    Args:
        app: The application, before it is started.
        default_retry_seconds: The `Retry-After` of an error without a `retry_after`, such as that of a
            circuit breaker that is forced open; finite, above 0.

    Raises:
        ValueError: `default_retry_seconds` is out of its range.
    """
    if not 0 < default_retry_seconds < math.inf:
        raise ValueError(f"default_retry_seconds must be finite and above 0, not {default_retry_seconds}")

    async def answer(request: Request, error: Exception) -> JSONResponse:
        decisions: Sequence[_LimitDecision] = request.scope.get(_DECISIONS, ())
        violated = [made.name for made in decisions if not made.decision.allowed]
        return _problem(error, violated, default_retry_seconds)

    app.add_exception_handler(ResilienceError, answer)
    app.add_middleware(_LimitHeaders)


_ANSWERS: dict[type[Exception], tuple[int, str, str]] = {
    RateLimitedError: (429, "RATE_LIMIT_EXCEEDED", "Rate limit exceeded"),
    CircuitOpenError: (503, "CIRCUIT_OPEN", "A service that this request needs is unavailable"),
    BulkheadFullError: (503, "BULKHEAD_FULL", "Too many calls of this kind are running"),
    QueueFullError: (503, "QUEUE_FULL", "Too many calls of this kind wait"),
    QueueClosedError: (503, "QUEUE_CLOSED", "This server is stopping"),
    QueueTimeoutError: (504, "QUEUE_TIMEOUT", "The call did not start in time"),
    CallTimeoutError: (504, "CALL_TIMEOUT", "A service that this request needs did not answer in time"),
    ResilienceError: (503, "SERVICE_UNAVAILABLE", "The request cannot be served at present"),
}


def _problem(error: Exception, violated: Sequence[str], default_retry_seconds: float) -> JSONResponse:
    status, code, detail = next(_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)
    known = getattr(error, "retry_after", None)
    retry_after = known if known is not None and math.isfinite(known) else default_retry_seconds
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        document |= {"type": f"{_PROBLEM_TYPES}quota-exceeded", "title": "Quota exceeded"}
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        document |= {"type": f"{_PROBLEM_TYPES}temporary-reduced-capacity", "title": "Capacity reduced"}
    if violated:
        document["violated-policies"] = violated
    headers = {"Retry-After": str(max(1, math.ceil(retry_after)))}
    return JSONResponse(document, status, headers, media_type="application/problem+json")


class _LimitHeaders:
    """Middleware that adds the headers of the limits to the responses to counted requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        decisions: list[_LimitDecision] = []
        scope[_DECISIONS] = decisions

        async def send_with_headers(message: Message) -> None:
            if decisions and message["type"] == "http.response.start":
                message = _with_headers(message, decisions)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _with_headers(message: Message, decisions: Sequence[_LimitDecision]) -> MutableMapping[str, Any]:
    lines = list(message.get("headers", ()))
    tightest = min(decisions, key=lambda made: made.decision.remaining)
    for made in decisions:
        headers = made.headers.of_decision(made.decision, made.made_at)
        lines += [
            header for header in headers if made is tightest or not header[0].startswith(b"x-ratelimit-")
        ]
    return {**message, "headers": lines}


class Closable(Protocol):
    """A resource with an `aclose`, such as a queue, a cache or an HTTP client."""

    async def aclose(self) -> object:
        """Close it."""
        ...


def closing_lifespan(
    *resources: Closable | AbstractAsyncContextManager[Any],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan for `FastAPI(lifespan=…)` that closes `resources` when the application stops.

    A resource without an `aclose` is entered when the application starts. The resources are closed in reverse
    order. If one of them fails, the others are closed too. Within a lifespan of your own, write
    ``async with closing_lifespan(queue)(app):``.

    Args:
        resources: The resources, in the order in which the application needs them.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for resource in resources:
                close: Callable[[], Awaitable[object]] | None = getattr(resource, "aclose", None)
                if close is not None:
                    stack.push_async_callback(close)
                elif isinstance(resource, AbstractAsyncContextManager):
                    await stack.enter_async_context(resource)
                else:
                    raise TypeError(f"{resource!r} has no aclose and is no async context manager")
            yield

    return lifespan
