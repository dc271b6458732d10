"""The app: FastAPI's routes and documents behind our own middleware."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from src.api import openapi
from src.api.hot_routes import HotRoute, hot_route_table
from src.api.request_context import RequestContext
from src.api.request_middleware import RequestMiddleware
from src.web.head import HeadMiddleware
from src.web.offline_docs import add_offline_docs

DESCRIPTION = """
A self-hosted metrics service. Post measurements, ask for summaries; what the service depends on may fail
without taking it down, and everyone can watch how.
"""


class App(FastAPI):
    """The API.

    Args:
        context: Begins and ends the context of each request.
        hot_routes: The routes that are served past the framework.
        lifespan: What the requests' state is made of.
        telemetry: What FastAPI records of requests.
    """

    def __init__(
        self,
        context: RequestContext,
        hot_routes: Iterable[HotRoute],
        *,
        lifespan: Lifespan[FastAPI],
        telemetry: TelemetryConfig,
    ) -> None:
        super().__init__(
            title="Resilient Analytics API",
            version="0.1.0",
            description=DESCRIPTION,
            license_info={"name": "MIT", "identifier": "MIT"},
            lifespan=lifespan,
            telemetry=telemetry,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,  # it would send the client to whatever Host it named
        )
        add_offline_docs(self)
        self._is_traced = telemetry.get("tracing") or telemetry.get("metrics")
        self._middleware = RequestMiddleware(
            HeadMiddleware(AsyncExitStackMiddleware(self.router), self.router),
            context,
            hot_route_table(hot_routes),
        )
        self._document: dict[str, Any] = {}

    def build_middleware_stack(self) -> ASGIApp:
        """Return all that stands before the routes."""
        return self._middleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection. A request that is not traced needs nothing of what FastAPI does first."""
        if scope["type"] == "http" and not self._is_traced:
            scope["app"] = self
            await self._middleware(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document. All routes are there when it is first asked for."""
        if not self._document:
            self._document = openapi.completed(super().openapi())
        return self._document
