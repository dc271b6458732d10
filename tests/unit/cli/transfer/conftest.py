"""A fake service, and a terminal that records its output."""

import json
from collections.abc import Callable

import httpx
import pytest

from src.cli.transfer.service_client import ServiceClient
from tests.support.clock import FakeClock


class FakeService:
    """A fake service with points of a few types. A test can make its requests fail.

    Attributes:
        points: All points, in order.
        failures: The responses to the next requests, instead of those of the service.
        requests: The received requests, in order.
        cut_after: Bytes of an export after which the connection ends.
        has_export: Whether the service has the export. An older version has only the list.
        page_points: Points in a page of the list.
        batches: The stored batches, by idempotency key.
    """

    def __init__(self) -> None:
        self.points: list[dict[str, object]] = []
        self.failures: list[httpx.Response | Exception] = []
        self.requests: list[httpx.Request] = []
        self.cut_after: int | None = None
        self.has_export = True
        self.page_points = 3
        self.batches: dict[str, list[dict[str, object]]] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        if request.url.path == "/api/metrics/types":
            names = {point["type"] for point in self.points}
            return httpx.Response(
                200,
                json=[
                    {"type": name, "count": sum(point["type"] == name for point in self.points)}
                    for name in names
                ],
            )
        if request.url.path == "/api/metrics/batch":
            return self._store(request)
        if request.url.path == "/api/metrics/list":
            return self._list(request)
        return self._export(request) if self.has_export else httpx.Response(404, json={"message": "nothing"})

    def _list(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        newest = [point for point in reversed(self.points) if point["type"] == query["type"]]
        start = int(query.get("cursor", 0))
        following = start + self.page_points
        headers = {}
        if following < len(newest):
            headers["Link"] = f'</api/metrics/list?type={query["type"]}&cursor={following}>; rel="next"'
        return httpx.Response(200, json=newest[start:following], headers=headers)

    def _export(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        body = b"".join(
            json.dumps(point).encode() + b"\n"
            for point in self.points
            if point["type"] == query["type"] and query.get("from", "") <= point["timestamp"]
        )
        cut_after, self.cut_after = self.cut_after, None

        async def stream():
            yield body[:cut_after]
            if cut_after is not None:
                raise httpx.RemoteProtocolError("incomplete chunked read")

        return httpx.Response(200, headers={"Content-Type": "application/x-ndjson"}, content=stream())

    def _store(self, request: httpx.Request) -> httpx.Response:
        points = [json.loads(line) for line in request.content.splitlines()]
        wrong = [index for index, point in enumerate(points) if not isinstance(point["value"], float)]
        errors = [{"index": index, "field": "value", "message": "is no number"} for index in wrong]
        self.batches[request.headers["Idempotency-Key"]] = points
        status = 201 if not wrong else 207 if len(wrong) < len(points) else 422
        answer = {"accepted": len(points) - len(wrong), "rejected": len(wrong), "errors": errors}
        return httpx.Response(status, json=answer)


def point(second: int, value: object = 1.0, kind: str = "cpu") -> dict[str, object]:
    return {"timestamp": f"2026-01-31T12:{second // 60:02}:{second % 60:02}Z", "value": value, "type": kind}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def use_service(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the requests of the commands to the fake service."""
    client = httpx.AsyncClient

    def connected(**options: object) -> httpx.AsyncClient:
        return client(transport=httpx.MockTransport(service), **options)

    monkeypatch.setattr("src.cli.transfer.service_client.httpx.AsyncClient", connected)


@pytest.fixture
def client_of(service: FakeService, clock: FakeClock) -> Callable[[], ServiceClient]:
    def make(notices: list[str] | None = None) -> ServiceClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(service), base_url="http://service")
        return ServiceClient(http, clock, (notices if notices is not None else []).append)

    return make
