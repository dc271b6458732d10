"""The client of the external service: reference data of a metric type, requested through the pipeline."""

import os
from dataclasses import dataclass
from typing import Protocol, TypedDict
from urllib.parse import quote

import httpx
import orjson
from dotenv import dotenv_values

from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError, ResilienceError
from src.resilience.pipeline import Pipeline
from src.services.errors import ServiceError, StorageUnavailableError
from src.services.http_date import http_date

NAME = "external-service"
"""The name of the external service in the policies around its calls."""

MAX_REFERENCE_BYTES = 64 * 1024
MAX_RETRY_AFTER_SECONDS = 86_400.0
MAX_SIMULATED_LATENCY_MS = 60_000
_OWN_API_TIMEOUT_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 1.0
_NO_ANSWER = (httpx.HTTPError, OSError)  # OSError: the service in this process closed the connection


class ExternalServiceError(ServiceError):
    """One attempt failed: no answer, a server error, or an unreadable answer.

    Args:
        reason: The cause.
        retry_after: The `Retry-After` of the answer in seconds; None if there is none.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ExternalServiceRefusedError(ServiceError):
    """The service answered with a client error (4xx), so it is not failing. A retry helps only after a 429.

    Args:
        status: The status of the answer, 400 to 499.
        retry_after: The `Retry-After` of the answer in seconds; None if there is none.
    """

    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


class ExternalServiceUnavailableError(ServiceError):
    """The pipeline gave up on the call.

    Args:
        retry_after: Seconds after which a retry is useful; None if that is not known.
        policy: The name of the policy around the calls of the service.
    """

    def __init__(self, retry_after: float | None = None, policy: str = NAME) -> None:
        super().__init__(f"the service behind '{policy}' did not give an answer")
        self.retry_after = _RETRY_AFTER_SECONDS if retry_after is None else retry_after
        self.policy = policy


@dataclass(frozen=True, slots=True)
class SimulatedFaults:
    """The faults of the simulated service.

    Attributes:
        failure_rate: Share of calls that fail, 0 to 1.
        latency_ms: Delay of each call in milliseconds, 0 to 60,000. Calls that fail are delayed too.
    """

    failure_rate: float
    latency_ms: int


class FaultChanges(TypedDict, total=False):
    """Changes of `SimulatedFaults`. A missing member stays unchanged."""

    failure_rate: float
    latency_ms: int


class FaultStore(Protocol):
    """The faults that all workers share, if each worker runs the simulated service in its own process."""

    async def get(self) -> FaultChanges:
        """Return the faults that have been set."""
        ...

    async def set(self, changes: FaultChanges) -> None:
        """Set the members of `changes`, which is not empty. The other members stay unchanged."""
        ...


def is_failure(error: BaseException) -> bool | None:
    """Classify `error` for the circuit breaker; None if the error does not count."""
    return None if isinstance(error, ExternalServiceRefusedError) else True


def is_worth_retrying(error: BaseException) -> bool:
    """Return whether another attempt may succeed after `error`."""
    if isinstance(error, ExternalServiceRefusedError):
        return error.status == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, (ExternalServiceError, ResilienceError)) and not isinstance(error, RejectedError)


def retry_after_seconds(value: str, now: float) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, section 10.2.3).

    Args:
        value: The value of the header: whole seconds, or a date.
        now: Unix time.

    Returns:
        The seconds, at most `MAX_RETRY_AFTER_SECONDS`; a negative number for a date in the past; None if the
        value is neither a number nor a date.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    date = http_date(text)
    return None if date is None else min(date - now, MAX_RETRY_AFTER_SECONDS)


class ExternalService:
    """The client of the external service.

    Args:
        client: An HTTP client with the base URL of the service. Its transport can be an app in this process.
        pipeline: Runs every call for reference data.
        clock: Compares the date of a `Retry-After` with the present.
        shared_faults: The faults that all workers share, if the service runs in this process; otherwise None.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        pipeline: Pipeline,
        clock: Clock,
        shared_faults: FaultStore | None = None,
    ) -> None:
        self._client = client
        self._pipeline = pipeline
        self._clock = clock
        self._shared_faults = shared_faults
        self._applied = FaultChanges()

    async def reference(self, metric_type: str) -> object | None:
        """Return the reference data of `metric_type`: any JSON value, or None if there are none.

        Raises:
            CircuitOpenError: The breaker is open.
            ExternalServiceUnavailableError: Every attempt failed, or another policy rejected the call.
        """
        try:
            return await self._pipeline.run(lambda: self._fetch_reference(metric_type))
        except CircuitOpenError:
            raise
        except RejectedError as error:
            raise ExternalServiceUnavailableError(error.retry_after) from error
        except (ExternalServiceError, ExternalServiceRefusedError) as error:
            raise ExternalServiceUnavailableError(error.retry_after) from error
        except ResilienceError as error:
            raise ExternalServiceUnavailableError from error

    async def faults(self) -> SimulatedFaults:
        """Return the faults of the simulated service.

        Raises:
            ExternalServiceUnavailableError: The service does not answer, or is not a simulated one.
        """
        await self._apply_shared_faults()
        return await self._request_faults("GET")

    async def change_faults(self, changes: FaultChanges) -> SimulatedFaults:
        """Change the faults of the simulated service for every worker, and return all its faults.

        Raises:
            ExternalServiceUnavailableError: The service does not answer, or is not a simulated one.
            StorageUnavailableError: The store of the shared faults is unavailable.
        """
        await self._apply_shared_faults()
        if self._shared_faults is not None and changes:
            await self._shared_faults.set(changes)
        faults = await self._request_faults("PUT", changes)
        self._applied = {**self._applied, **changes}
        return faults

    async def attempt(self, path: str) -> bytes:
        """Request `path` once, without the pipeline, and return the body of a successful answer.

        Raises:
            ExternalServiceError: The service failed.
            ExternalServiceRefusedError: The service answered with a client error.
        """
        await self._apply_shared_faults()
        try:
            answer = await self._get(path)
        except _NO_ANSWER as error:
            raise ExternalServiceError(f"no answer: {type(error).__name__}") from error
        if answer.is_success:
            return answer.content
        retry_after = retry_after_seconds(answer.headers.get("Retry-After", ""), self._clock.now())
        if answer.is_client_error:
            raise ExternalServiceRefusedError(answer.status_code, retry_after)
        raise ExternalServiceError(f"status {answer.status_code}", retry_after)

    async def _fetch_reference(self, metric_type: str) -> object | None:
        try:
            body = await self.attempt(f"/kv/metric-types/{quote(metric_type, safe='')}")
        except ExternalServiceRefusedError as refusal:
            if refusal.status == httpx.codes.NOT_FOUND:
                return None
            raise
        try:
            value: object = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ExternalServiceError("the answer is not JSON") from error
        return value

    async def _get(self, path: str) -> httpx.Response:
        """Return the answer with its decoded body, of at most `MAX_REFERENCE_BYTES`.

        The only header of the answer is `Retry-After`: the other headers may describe the encoded body.
        """
        async with self._client.stream("GET", path) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_REFERENCE_BYTES:
                    raise ExternalServiceError(f"the answer has more than {MAX_REFERENCE_BYTES} bytes")
            kept = {name: value for name, value in answer.headers.items() if name == "retry-after"}
            return httpx.Response(answer.status_code, headers=kept, content=bytes(body))

    async def _apply_shared_faults(self) -> None:
        if self._shared_faults is None:
            return
        try:
            shared = await self._shared_faults.get()
        except StorageUnavailableError:
            return  # the faults that were applied last remain
        if shared != self._applied:
            await self._request_faults("PUT", shared)
            self._applied = shared

    async def _request_faults(self, method: str, changes: FaultChanges | None = None) -> SimulatedFaults:
        """Read or change the faults of the service."""
        try:
            answer = await self._client.request(method, "/faults", json=changes)
            answer.raise_for_status()
            faults = answer.json()
            return SimulatedFaults(float(faults["failure_rate"]), int(faults["latency_ms"]))
        except (*_NO_ANSWER, ValueError, KeyError, TypeError) as error:  # a real service has no /faults
            raise ExternalServiceUnavailableError from error


def set_failure_rate(rate: float, api_url: str | None = None) -> float:
    """Set the simulated failure rate through the API on this machine, from a shell or a script.

    The function sends `ADMIN_API_KEY` if it is set. It reads that key and `APP_PORT` from the environment or
    `.env`, like the service.

    Args:
        rate: Share of calls that fail, 0 to 1.
        api_url: The URL of the API; by default loopback with `APP_PORT`.

    Returns:
        The new failure rate.

    Raises:
        RuntimeError: The API did not answer, or rejected the request.
    """
    settings = dotenv_values(".env", encoding="utf-8-sig") | {
        name: value for name, value in os.environ.items() if value
    }
    url = api_url or f"http://127.0.0.1:{settings.get('APP_PORT') or 8000}"
    key = settings.get("ADMIN_API_KEY")
    try:
        answer = httpx.put(
            f"{url}/api/admin/external-service/failure-rate",
            json={"failure_rate": rate},
            headers={"X-API-Key": key} if key else None,
            timeout=_OWN_API_TIMEOUT_SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise RuntimeError(f"no API answers at {url}: {error}") from error
    if not answer.is_success:
        raise RuntimeError(f"the API at {url} rejected the request: {answer.status_code} {answer.text}")
    return float(answer.json()["failure_rate"])
