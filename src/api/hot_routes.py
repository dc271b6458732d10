"""Hot routes: the busiest ones, found by method and path alone, past the framework's routing and validation.

The handler of a hot route reads the whole request itself and answers what is wrong with it. FastAPI registers
the same handler: for the documents, for the methods that a path allows, and for a service below another path.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from src.api.rate_limit import AdmissionName


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route served past the framework.

    Attributes:
        method: The HTTP method; a route for GET serves HEAD too.
        path: The whole path; it has no parameters.
        handle: Answers a request, or raises an error that `src.api.errors` renders.
        admission: The admission that requests go through, if any. A client that is known to be over its quota
            is refused before the handler is called.
    """

    method: str
    path: str
    handle: Callable[[Request], Awaitable[Response]]
    admission: AdmissionName | None = None


HotRouteTable: TypeAlias = dict[tuple[str, str], HotRoute]
"""The hot routes by method and path."""


def hot_route_table(routes: Iterable[HotRoute]) -> HotRouteTable:
    """Return the table of `routes`, of which no two have the same method and path."""
    table = {(route.method, route.path): route for route in routes}
    heads = {("HEAD", path): route for (method, path), route in table.items() if method == "GET"}
    return table | heads
