"""The app: FastAPI's routes and documents behind this project's own middleware."""

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
A self-hosted metrics service. Clients post measurements and read summaries. The service keeps answering when
Redis or the external service fails, and the dashboard shows each failure and recovery.
"""


class App(FastAPI):
    """The API.

    Args:
        context: Begins and ends the context of each request.
        hot_routes: The routes that bypass the framework.
        lifespan: Creates the state that all requests share.
        telemetry: The spans and metrics that FastAPI records for each request.
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
            redirect_slashes=False,  # a redirect would send the client to any Host that it sent
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
        """Return the middleware, which calls the routes."""
        return self._middleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection. A request that is not traced skips FastAPI's own set-up."""
        if scope["type"] == "http" and not self._is_traced:
            scope["app"] = self
            await self._middleware(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document. All routes must be registered before the first call."""
        if not self._document:
            self._document = openapi.complete(super().openapi())
        return self._document
