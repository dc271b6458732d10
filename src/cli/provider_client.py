"""A client of the provider, over HTTP or in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError

from src.provider.app import create_provider_app
from src.provider.faults import Faults
from src.resilience.clock import Clock, Randomizer

NO_CONNECTION = "no connection"
CUT_OFF = "cut off"


class ProviderError(Exception):
    """A call failed. The message is the reason in a few words."""


class NoAnswerError(ProviderError):
    """There was no connection, or the connection closed before the end of the answer."""


class FailedAnswerError(ProviderError):
    """The provider answered with a server error (5xx). The message is the status code."""


class RefusedAnswerError(ProviderError):
    """The provider answered with a client error (4xx) other than 404. The message is the status code."""


def is_failure(error: Exception) -> bool | None:
    """Classify `error` for a circuit breaker. A client error does not count."""
    return None if isinstance(error, RefusedAnswerError) else True


class ProviderClient:
    """A client without its own timeouts: the caller uses a `Timeout`.

    Args:
        http: An HTTP client with the provider's base URL and without timeouts.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        """Return the answer to one call. A 404 is a valid answer: the key does not exist.

        Raises:
            ProviderError: There is no answer, or the answer is an error.
        """
        try:
            answer = await self._http.request(method, path, content=body)
        except httpx.ConnectError as error:
            raise NoAnswerError(NO_CONNECTION) from error
        except (httpx.HTTPError, OSError) as error:  # OSError: the provider in this process cut the answer
            raise NoAnswerError(CUT_OFF) from error
        if answer.is_success or answer.status_code == httpx.codes.NOT_FOUND:
            return answer
        kind = FailedAnswerError if answer.is_server_error else RefusedAnswerError
        raise kind(str(answer.status_code))

    async def faults(self) -> Faults:
        """Return the current faults.

        Raises:
            ProviderError: There is no answer, or not the answer of a provider.
        """
        answer = await self.call("GET", "/faults")
        try:
            return Faults.model_validate_json(answer.content)
        except ValidationError as error:
            raise ProviderError("the answer is not that of a provider") from error

    async def set_faults(self, faults: Faults) -> None:
        """Replace all faults by `faults`. The errors are those of `call`."""
        await self.call("PUT", "/faults", faults.model_dump_json().encode())

    async def count_calls(self) -> int:
        """Return the number of calls since the start of the provider. The errors are those of `call`."""
        answer = await self.call("GET", "/stats")
        return int(answer.json()["calls"])


@asynccontextmanager
async def connect(url: str | None, clock: Clock, randomizer: Randomizer) -> AsyncIterator[ProviderClient]:
    """Yield a client of the provider at `url`, or of a new provider in this process without faults.

    Args:
        url: The base URL; None for a provider in this process. Nothing is sent yet.
        clock: The clock of the provider in this process.
        randomizer: The random numbers of the provider in this process.
    """
    transport = None
    if url is None:
        transport = httpx.ASGITransport(
            create_provider_app(Faults(), chance=randomizer.random, now=clock.monotonic, sleep=clock.sleep)
        )
    base_url = url or "http://provider"
    async with httpx.AsyncClient(
        transport=transport,
        base_url=base_url,
        timeout=None,  # noqa: S113 -- the caller uses a Timeout
        trust_env=False,
    ) as http:
        yield ProviderClient(http)
