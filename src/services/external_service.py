"""The external service's client: reference data of a metric type, asked for through the pipeline."""

import os
from dataclasses import dataclass
from typing import Protocol, TypedDict
from urllib.parse import quote

import httpx
import orjson
from dotenv import dotenv_values

from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError, ResilienceError
from src.resilience.http_date import retry_after_seconds
from src.resilience.pipeline import Pipeline
from src.services.errors import ServiceError, StorageUnavailableError

NAME = "external-service"
"""Names the external service in the policies around its calls."""

MAX_REFERENCE_BYTES = 64 * 1024
MAX_SIMULATED_LATENCY_MS = 60_000
_OWN_API_TIMEOUT_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 1.0
_NO_ANSWER = (httpx.HTTPError, OSError)  # OSError: a connection that the service in process cut


class ExternalServiceError(ServiceError):
    """One attempt failed: no answer, a server error, or an answer that can't be read.

    Args:
        reason: What happened.
        retry_after: Seconds after which the service asks to be called again; None where it does not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ExternalServiceRefusedError(ServiceError):
    """The service said that the fault is ours; it is not failing. Another attempt helps only after a 429.

    Args:
        status: What it answered, from 400 to 499.
        retry_after: As that of `ExternalServiceError`.
    """

    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


class ExternalServiceUnavailableError(ServiceError):
    """The pipeline gave up on the call.

    Args:
        retry_after: Seconds after which a new try is worthwhile; None where that is not known.
        policy: Name of the policy around the calls of the service that did not answer.
    """

    def __init__(self, retry_after: float | None = None, policy: str = NAME) -> None:
        super().__init__(f"the service behind '{policy}' did not give an answer")
        self.retry_after = _RETRY_AFTER_SECONDS if retry_after is None else retry_after
        self.policy = policy


@dataclass(frozen=True, slots=True)
class SimulatedFaults:
    """How the simulated service misbehaves.

    Attributes:
        failure_rate: Share of calls that fail, 0 to 1.
        latency_ms: Milliseconds each call waits first, whether it fails or not, 0 to 60,000.
    """

    failure_rate: float
    latency_ms: int


class FaultChanges(TypedDict, total=False):
    """Some of `SimulatedFaults`; what is missing is left as it is."""

    failure_rate: float
    latency_ms: int


class FaultStore(Protocol):
    """Where the workers agree on the faults of a simulated service that each runs in process."""

    async def get(self) -> FaultChanges:
        """Return what has been agreed, and nothing of what nobody has set."""
        ...

    async def set(self, changes: FaultChanges) -> None:
        """Make `changes`, of which there is at least one, what is agreed; the rest stays."""
        ...


def is_failure(error: BaseException) -> bool | None:
    """Tell the circuit breaker what `error` says of the service: None means nothing."""
    return None if isinstance(error, ExternalServiceRefusedError) else True


def is_worth_retrying(error: BaseException) -> bool:
    """Tell the retry whether another attempt could go better."""
    if isinstance(error, ExternalServiceRefusedError):
        return error.status == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, (ExternalServiceError, ResilienceError)) and not isinstance(error, RejectedError)


class ExternalService:
    """What the API wants of the external service.

    Args:
        client: Bound to the service's base URL; a real one, or one whose transport is the app in process.
        pipeline: Stands around every call for reference data.
        clock: Tells how far off the date of a `Retry-After` is.
        shared_faults: Where the service runs in process, in every worker: what they agree its faults are.
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
        """Return what the service knows of `metric_type`: any JSON value, None when it knows nothing.

        Raises:
            CircuitOpenError: The breaker is open.
            ExternalServiceUnavailableError: Every attempt failed, or there was no room for the call.
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
        """Return how the simulated service misbehaves.

        Raises:
            ExternalServiceUnavailableError: It does not answer, or is no simulated one.
        """
        await self._follow_shared_faults()
        return await self._ask_faults("GET")

    async def change_faults(self, changes: FaultChanges) -> SimulatedFaults:
        """Have the simulated service misbehave like that, for every worker; return all its faults.

        Raises:
            ExternalServiceUnavailableError: It does not answer, or is no simulated one.
            StorageUnavailableError: The workers can't be told.
        """
        await self._follow_shared_faults()
        if self._shared_faults is not None and changes:
            await self._shared_faults.set(changes)
        faults = await self._ask_faults("PUT", changes)
        self._applied = {**self._applied, **changes}
        return faults

    async def attempt(self, path: str) -> bytes:
        """Ask for `path` once, with nothing around it, and return the body of a good answer.

        Raises:
            ExternalServiceError: The service failed.
            ExternalServiceRefusedError: The service refused.
        """
        await self._follow_shared_faults()
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
            raise ExternalServiceError("an answer that is not JSON") from error
        return value

    async def _get(self, path: str) -> httpx.Response:
        """Return the answer with its body, of which no more is read than reference data may be long.

        Of its headers it has `Retry-After` alone: the others tell of the body as it was sent.
        """
        async with self._client.stream("GET", path) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_REFERENCE_BYTES:
                    raise ExternalServiceError(f"an answer of more than {MAX_REFERENCE_BYTES} bytes")
            kept = {name: value for name, value in answer.headers.items() if name == "retry-after"}
            return httpx.Response(answer.status_code, headers=kept, content=bytes(body))

    async def _follow_shared_faults(self) -> None:
        if self._shared_faults is None:
            return
        try:
            agreed = await self._shared_faults.get()
        except StorageUnavailableError:
            return  # what was agreed last still holds
        if agreed != self._applied:
            await self._ask_faults("PUT", agreed)
            self._applied = agreed

    async def _ask_faults(self, method: str, changes: FaultChanges | None = None) -> SimulatedFaults:
        """Read or change how the service misbehaves."""
        try:
            answer = await self._client.request(method, "/faults", json=changes)
            answer.raise_for_status()
            faults = answer.json()
            return SimulatedFaults(float(faults["failure_rate"]), int(faults["latency_ms"]))
        except (*_NO_ANSWER, ValueError, KeyError, TypeError) as error:  # or a service that has no such thing
            raise ExternalServiceUnavailableError from error


def set_failure_rate(rate: float, api_url: str | None = None) -> float:
    """Set the simulated failure rate of the service that runs on this machine, from a shell or a script.

    Args:
        rate: Share of calls that fail, 0 to 1.
        api_url: The API; by default on loopback at `APP_PORT`. `ADMIN_API_KEY` is sent when it is set. Both
            are read from the environment or `.env`, as the service reads them.

    Returns:
        The rate now in force.

    Raises:
        RuntimeError: The API did not answer, or refused.
    """
    known = dotenv_values(".env", encoding="utf-8-sig") | {
        name: value for name, value in os.environ.items() if value
    }
    url = api_url or f"http://127.0.0.1:{known.get('APP_PORT') or 8000}"
    key = known.get("ADMIN_API_KEY")
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
        raise RuntimeError(f"the API at {url} refused: {answer.status_code} {answer.text}")
    return float(answer.json()["failure_rate"])
