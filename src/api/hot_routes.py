"""Hot routes: the busiest routes, which bypass the framework's routing and validation.

A hot route is found by method and path alone, and its handler parses and validates the whole request. FastAPI
registers the same handler too: for the documents, for the allowed methods of the path, and for a service that
a proxy serves below another path.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from src.api.rate_limit import AdmissionName


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route that bypasses the framework.

    Attributes:
        method: The HTTP method. A route for GET serves HEAD too.
        path: The whole path, without parameters.
        handle: Answers a request, or raises an error that `src.api.errors` renders.
        admission: The admission that counts the requests; None if no quota applies. If the admission already
            knows that a client is over its quota, the request is rejected without calling the handler.
    """

    method: str
    path: str
    handle: Callable[[Request], Awaitable[Response]]
    admission: AdmissionName | None = None


HotRouteTable: TypeAlias = dict[tuple[str, str], HotRoute]
"""The hot routes by method and path."""


def hot_route_table(routes: Iterable[HotRoute]) -> HotRouteTable:
    """Return the table of `routes`. No two routes may have the same method and path."""
    table = {(route.method, route.path): route for route in routes}
    heads = {("HEAD", path): route for (method, path), route in table.items() if method == "GET"}
    return table | heads
