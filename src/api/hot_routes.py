"""Hot routes: the busiest routes, which bypass the framework's routing and validation.

A hot route is found by method and path alone, and its handler parses and validates the whole request. The
same handler is also registered with FastAPI, for three reasons: the OpenAPI document describes it, the
`Allow` header lists its method, and requests reach it if a proxy serves the service below a path prefix.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from src.api.rate_limit import AdmissionKey


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route that bypasses the framework.

    Attributes:
        method: The HTTP method. A route for GET also serves HEAD.
        path: The whole path. Path parameters are not supported.
        handle: Answers a request, or raises an error that `src.api.errors` renders.
        admission: The key of the admission that counts the requests against a quota; None if no quota
            applies. A client that is already known to be over its quota is rejected without a call of the
            handler.
    """

    method: str
    path: str
    handle: Callable[[Request], Awaitable[Response]]
    admission: AdmissionKey | None = None


HotRouteTable: TypeAlias = dict[tuple[str, str], HotRoute]
"""The hot routes by method and path."""


def hot_route_table(routes: Iterable[HotRoute]) -> HotRouteTable:
    """Return the table of `routes`. No two routes may have the same method and path."""
    table = {(route.method, route.path): route for route in routes}
    head_routes = {("HEAD", path): route for (method, path), route in table.items() if method == "GET"}
    return table | head_routes
