"""A FastAPI app with a pipeline: its construction, its use in a handler, and the responses to a client.

`create_app` is the part to copy. The rest of the module calls the app in this process, without a port.

Run it from the checkout: `python examples/fastapi_resilience.py`, or `python -m examples.fastapi_resilience`.
The app can also be served: `uvicorn examples.fastapi_resilience:app`.
"""

import math
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, which has `examples` and `src`

from examples.stage import SimulatedClock, console, play, table
from src.resilience import (
    CircuitBreaker,
    CircuitBreakerOptions,
    Fixed,
    MemoryBreakerStore,
    Pipeline,
    Quota,
    RateLimitedError,
    RejectedError,
    Retry,
    RetryOptions,
    SystemClock,
    Timeout,
    memory_rate_limiter,
)
from src.resilience.clock import Clock, SystemRandomizer
from src.resilience.rate_limiter import Decision

Upstream = Callable[[str], Awaitable[float]]
"""Returns the price of an item, from another service."""


def create_app(upstream: Upstream, clock: Clock) -> FastAPI:
    """Return an app that serves prices from `upstream`.

    The policies are created once, with the app, and shared by all requests. A breaker per request could not
    count the failures of other requests.
    """
    app = FastAPI()
    clients = memory_rate_limiter("sliding_window_log", Quota(limit=8, window_seconds=10.0), clock)
    pipeline = Pipeline(
        CircuitBreaker(
            "prices",
            MemoryBreakerStore(clock),
            CircuitBreakerOptions(failure_threshold=2, open_seconds=5.0),
            clock,
        ),
        Retry(RetryOptions(attempts=2, backoff=Fixed(0.1)), clock, SystemRandomizer()),
        Timeout(1.0, clock),
    )

    @app.get("/prices/{item}")
    async def price(item: str, request: Request, response: Response) -> dict[str, str | float]:
        client = request.client.host if request.client else "unknown"
        decision = await clients.hit(client)
        if not decision.allowed:
            raise RateLimitedError("clients", "too many requests", decision.retry_after)
        response.headers["RateLimit"] = rate_limit_header(decision)
        return {"item": item, "price": await pipeline.run(lambda: upstream(item))}

    @app.exception_handler(RejectedError)
    async def rejected(_request: Request, error: RejectedError) -> JSONResponse:
        """Answer every rejection, with a `Retry-After` if the error has one."""
        status = 429 if isinstance(error, RateLimitedError) else 503
        headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
        return JSONResponse({"detail": f"refused by {error.policy}"}, status, headers)

    @app.exception_handler(ConnectionError)
    async def unavailable(_request: Request, _error: ConnectionError) -> JSONResponse:
        """Answer a request whose calls failed in all attempts."""
        return JSONResponse({"detail": "price unavailable"}, 503, {"Retry-After": "1"})

    return app


def rate_limit_header(decision: Decision) -> str:
    """Return the value of the RateLimit header (draft-ietf-httpapi-ratelimit-headers)."""
    return f'"clients";r={decision.remaining};t={math.ceil(decision.reset_after)}'


class Shop:
    """An upstream that can be switched off."""

    def __init__(self) -> None:
        self.is_open = True
        self.calls = 0

    async def price(self, _item: str) -> float:
        """Return a price, or raise ConnectionError while the shop is closed."""
        self.calls += 1
        if not self.is_open:
            raise ConnectionError
        return 9.5


async def main() -> None:
    """Send requests during an outage of the upstream, and more than the rate limit allows."""
    clock, shop = SimulatedClock(), Shop()
    transport = httpx.ASGITransport(create_app(shop.price, clock))
    columns = ("second", "shop", "status", "retry", "RateLimit", "calls", "answer")
    shown = table("GET /prices/tea", *columns)

    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        for second, is_open in (
            *((0, True), (1, False), (2, False), (3, False), (4, True)),
            *((9, True), *[(9, True)] * 3, (12, True)),
        ):
            await clock.sleep(max(0.0, second - clock.monotonic()))
            shop.is_open, calls_before = is_open, shop.calls
            answer = await client.get("/prices/tea")
            shown.add_row(
                str(second),
                "up" if is_open else "down",
                str(answer.status_code),
                answer.headers.get("Retry-After", ""),
                answer.headers.get("RateLimit", ""),
                str(shop.calls - calls_before),
                answer.json().get("detail") or f"price {answer.json()['price']}",
            )
    console.print(shown)


app = create_app(Shop().price, SystemClock())
"""Served by `uvicorn examples.fastapi_resilience:app`, then try `curl localhost:8000/prices/tea`."""

if __name__ == "__main__":
    play(main())
