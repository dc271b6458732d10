"""The client of the external service: reference data of a metric type, requested through the pipeline."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import httpx
import orjson

from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError, ResilienceError
from src.resilience.http.http_date import retry_after_seconds
from src.resilience.pipeline import Pipeline
from src.services.errors import ServiceError
from src.services.failure_rate_command import set_failure_rate  # noqa: F401 -- the documented import path

NAME = "external-service"
"""The name of the external service in the policies around its calls."""

MAX_REFERENCE_BYTES = 64 * 1024
_RETRY_AFTER_SECONDS = 1.0
NO_ANSWER = (httpx.HTTPError, OSError)
"""The errors of a call without an answer. OSError: the service in this process closed the connection."""


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


def is_failure(error: BaseException) -> bool | None:
    """Classify `error` for the circuit breaker; None if the error does not count."""
    return None if isinstance(error, ExternalServiceRefusedError) else True


def is_worth_retrying(error: BaseException) -> bool:
    """Return whether another attempt may succeed after `error`."""
    if isinstance(error, ExternalServiceRefusedError):
        return error.status == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, (ExternalServiceError, ResilienceError)) and not isinstance(error, RejectedError)


class ExternalService:
    """The client of the external service.

    Args:
        client: An HTTP client with the base URL of the service. Its transport can be an app in this process.
        pipeline: Runs every call for reference data.
        clock: Compares the date of a `Retry-After` with the present.
        prepare: Called before each attempt, to apply the faults that all workers share.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        pipeline: Pipeline,
        clock: Clock,
        prepare: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._client = client
        self._pipeline = pipeline
        self._clock = clock
        self._prepare = prepare

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

    async def attempt(self, path: str) -> bytes:
        """Request `path` once, without the pipeline, and return the body of a successful answer.

        Raises:
            ExternalServiceError: The service failed.
            ExternalServiceRefusedError: The service answered with a client error.
        """
        if self._prepare is not None:
            await self._prepare()
        try:
            answer = await self._get(path)
        except NO_ANSWER as error:
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
