"""The client of a running service: its types, its exports and its batches."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter

import httpx

from src.cli.base_url import check_base_url
from src.cli.transfer.list_walk import walk_list
from src.resilience.clock import Clock

DEFAULT_URL = "http://127.0.0.1:8000"

MAX_ATTEMPTS = 5
"""The number of attempts for a request to a service that fails or no longer responds."""

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""The longest time without data from the service during a response."""

RETRY_SECONDS = 1.0
"""The wait before a request is sent again, if the answer has no `Retry-After`."""

_NDJSON = "application/x-ndjson"
_CONTINUE = "run the same command again to continue"


class TransferError(Exception):
    """An export or import could not begin or end. The message is one line with the reason and a remedy."""


class NotFoundError(TransferError):
    """The service has nothing at a path."""


class BatchTooLargeError(TransferError):
    """The service takes no batch of this size."""


def check_service(url: str, api_key: str | None) -> None:
    """Check the URL of a service, and its key.

    Raises:
        ValueError: One of them can't be used; the message begins with its name.
    """
    check_base_url(url, DEFAULT_URL)
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("api_key must be printable ASCII without blanks")


@asynccontextmanager
async def connect_service(
    url: str, api_key: str | None, clock: Clock, notify: Callable[[str], object]
) -> AsyncIterator["ServiceClient"]:
    """Give a client of the service at `url`. Nothing is sent yet.

    Args:
        url: Base URL.
        api_key: Sent as `X-API-Key`, if any.
        clock: Waits.
        notify: Called with a sentence about each wait.
    """
    async with httpx.AsyncClient(
        base_url=url,
        headers={"X-API-Key": api_key} if api_key else None,
        timeout=httpx.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
        trust_env=False,
    ) as http:
        yield ServiceClient(http, clock, notify)


@dataclass(frozen=True, slots=True)
class RejectedPoint:
    """A point that the service rejects: its place in the batch from 0, the field, and why."""

    index: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The service's answer to a batch.

    Attributes:
        accepted: Points that are stored.
        rejected: Points that are not.
        errors: Why; the service names the first 100 things wrong.
    """

    accepted: int
    rejected: int
    errors: Sequence[RejectedPoint]


class ServiceClient:
    """Calls a service, and waits if the service requests it.

    A request over the quota is sent again after `Retry-After`. A request that finds the service failing, or
    no connection, is sent again a few times, but only once the service has answered.

    Args:
        http: Bound to the service's base URL and its key.
        clock: Waits.
        notify: Called with a sentence about each wait.
    """

    def __init__(self, http: httpx.AsyncClient, clock: Clock, notify: Callable[[str], object]) -> None:
        self._http = http
        self._clock = clock
        self._notify = notify
        self._has_answered = False
        self._has_export = True

    async def types(self) -> dict[str, int]:
        """Return each type with its number of points, in order of names.

        Raises:
            TransferError: The service does not answer, refuses, or is none.
        """
        response = await self._get("/api/metrics/types")
        try:
            return {item["type"]: item["count"] for item in sorted(response.json(), key=itemgetter("type"))}
        except (TypeError, KeyError, ValueError):
            raise self._no_service() from None

    async def export(self, query: Sequence[tuple[str, str]]) -> AsyncIterator[bytes]:
        """Yield the lines of an export, some at once, each with its line break.

        A version of the service that has no export is read by its list.

        Args:
            query: Names and values of the parameters.

        Raises:
            TransferError: The service does not answer or refuses, or the export was cut off.
        """
        if self._has_export:
            try:
                async for lines in self._export(query):
                    yield lines
            except NotFoundError:
                self._has_export = False
                self._notify("This version of the service has no export: its list is read, page by page")
        if self._has_export:
            return
        try:
            async for lines in walk_list(self._get, query):
                yield lines
        except (TypeError, KeyError, ValueError):
            raise self._no_service() from None

    async def _get(self, path: str) -> httpx.Response:
        return await self._answer(self._http.build_request("GET", path))

    async def _export(self, query: Sequence[tuple[str, str]]) -> AsyncIterator[bytes]:
        request = self._http.build_request(
            "GET", "/api/metrics/export", params=httpx.QueryParams(list(query))
        )
        response = await self._answer(request, is_read=False)
        rest = b""
        try:
            if response.headers.get("content-type", "").partition(";")[0] != _NDJSON:
                raise self._no_service()
            async for chunk in response.aiter_bytes():
                lines, line_break, rest = (rest + chunk).rpartition(b"\n")
                if line_break:
                    yield lines + line_break
        except (httpx.HTTPError, httpx.StreamError):
            raise TransferError(f"the export was cut off; {_CONTINUE}") from None
        finally:
            await response.aclose()
        if rest:
            raise TransferError(f"the export ends within a line; {_CONTINUE}")

    async def store(self, lines: bytes, key: str) -> BatchResult:
        """Store one point a line. Calls with the same `key` store the points once.

        Raises:
            TransferError: The service does not answer, or refuses the whole batch.
        """
        headers = {"Content-Type": _NDJSON, "Idempotency-Key": key}
        request = self._http.build_request("POST", "/api/metrics/batch", content=lines, headers=headers)
        response = await self._answer(request)
        try:
            answer = response.json()
            errors = [
                RejectedPoint(error["index"], error["field"], error["message"]) for error in answer["errors"]
            ]
            return BatchResult(answer["accepted"], answer["rejected"], errors)
        except (TypeError, KeyError, ValueError):
            raise self._no_service() from None

    async def _answer(self, request: httpx.Request, *, is_read: bool = True) -> httpx.Response:
        """Return the answer to `request`, with its body if `is_read`."""
        attempts = 0
        while True:
            try:
                response = await self._http.send(request, stream=True)
                self._has_answered = True
                if is_read or not response.is_success:
                    await response.aread()
            except httpx.HTTPError as error:
                is_refused = isinstance(error, httpx.ConnectError)
                reason, seconds = "no connection" if is_refused else "no complete answer", RETRY_SECONDS
            else:
                if response.is_success or _is_rejected_batch(response):
                    return response
                seconds = _retry_after(response)
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    await self._wait("The rate limit is reached", seconds)
                    continue
                reason = _failure(response)
            attempts += 1
            if not self._has_answered:
                raise TransferError(f"no service at {self._http.base_url}: {reason}")
            if attempts == MAX_ATTEMPTS:
                raise TransferError(f"the service at {self._http.base_url} fails: {reason}; {_CONTINUE}")
            await self._wait(f"The service fails: {reason}", seconds)

    async def _wait(self, reason: str, seconds: float) -> None:
        self._notify(f"{reason}; the next request is sent in {seconds:g} s")
        await self._clock.sleep(seconds)

    def _no_service(self) -> TransferError:
        return TransferError(f"what answers at {self._http.base_url} is not this service")


def _is_rejected_batch(response: httpx.Response) -> bool:
    """Return whether the answer to a batch names what is wrong with each of its points."""
    return response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and "accepted" in _members(response)


def _members(response: httpx.Response) -> dict[str, object]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _failure(response: httpx.Response) -> str:
    """Return why the service fails.

    Raises:
        TransferError: It does not fail, but refuses the request.
    """
    reason = str(_members(response).get("message", response.reason_phrase))
    if response.is_server_error:
        return reason
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        raise BatchTooLargeError(f"{reason}: lower --batch-points")
    kind = NotFoundError if response.status_code == httpx.codes.NOT_FOUND else TransferError
    raise kind(f"the service refuses ({response.status_code}): {reason}")


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else RETRY_SECONDS
