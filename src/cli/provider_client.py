"""The provider's client: its key-value store and its faults, over HTTP or in this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError

from src.provider.app import create_provider_app
from src.provider.faults import Faults
from src.resilience import Clock, Randomizer

NO_CONNECTION = "no connection"
CUT_OFF = "cut off"


class ProviderError(Exception):
    """A call was of no use; the message says why in a word or two."""


class NoAnswerError(ProviderError):
    """There was no connection, or it broke before the answer was complete."""


class FailedAnswerError(ProviderError):
    """The provider failed (5xx); the message is the status code."""


class RefusedAnswerError(ProviderError):
    """The provider refused, the fault being the caller's (4xx but 404); the message is the status code."""


def is_failure(error: Exception) -> bool | None:
    """Tell a circuit breaker what `error` says of the provider: a refusal says nothing."""
    return None if isinstance(error, RefusedAnswerError) else True


class ProviderClient:
    """Calls without limits of their own: patience is the caller's, by a `Timeout`.

    Args:
        http: Bound to the provider's base URL, with no timeout.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        """Return the answer to one call. A 404 is one: there is nothing under that key.

        Raises:
            ProviderError: There is no answer, or it is an error.
        """
        try:
            answer = await self._http.request(method, path, content=body)
        except httpx.ConnectError as error:
            raise NoAnswerError(NO_CONNECTION) from error
        except (httpx.HTTPError, OSError) as error:  # OSError: what a cut is in process
            raise NoAnswerError(CUT_OFF) from error
        if answer.is_success or answer.status_code == httpx.codes.NOT_FOUND:
            return answer
        kind = FailedAnswerError if answer.is_server_error else RefusedAnswerError
        raise kind(str(answer.status_code))

    async def faults(self) -> Faults:
        """Return the faults in force.

        Raises:
            ProviderError: There is no answer, or none that a provider would give.
        """
        answer = await self.call("GET", "/faults")
        try:
            return Faults.model_validate_json(answer.content)
        except ValidationError as error:
            raise ProviderError("what answers there is no provider") from error

    async def set_faults(self, faults: Faults) -> None:
        """Put all of `faults` in force, defaults included, in place of those that are. Raises as `call`."""
        await self.call("PUT", "/faults", faults.model_dump_json().encode())

    async def calls_seen(self) -> int:
        """Return how many calls the provider has had since it began. Raises as `call`."""
        answer = await self.call("GET", "/stats")
        return int(answer.json()["calls"])


@asynccontextmanager
async def connect(url: str | None, clock: Clock, randomizer: Randomizer) -> AsyncIterator[ProviderClient]:
    """Give a client of the provider at `url`, or of a new one in this process that works without fault.

    Args:
        url: Base URL; None for one in process. Nothing is sent yet.
        clock: By which the one in process waits.
        randomizer: Draws the failures of the one in process.
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
        timeout=None,  # noqa: S113 -- see ProviderClient
        trust_env=False,
    ) as http:
        yield ProviderClient(http)
