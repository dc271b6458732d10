"""The faults of the simulated external service: reading them, and changing them for every worker."""

from dataclasses import dataclass
from typing import Protocol, TypedDict

import httpx

from src.services.errors import StorageUnavailableError
from src.services.external_service import NO_ANSWER, ExternalServiceUnavailableError

MAX_SIMULATED_LATENCY_MS = 60_000


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


class FaultControl:
    """Reads and changes the faults.

    Args:
        client: An HTTP client with the base URL of the service.
        shared_faults: The faults that all workers share, if the service runs in this process; otherwise None.
    """

    def __init__(self, client: httpx.AsyncClient, shared_faults: FaultStore | None = None) -> None:
        self._client = client
        self._shared_faults = shared_faults
        self._applied = FaultChanges()

    async def read(self) -> SimulatedFaults:
        """Return the faults of the simulated service.

        Raises:
            ExternalServiceUnavailableError: The service does not answer, or is not a simulated one.
        """
        await self.apply_shared()
        return await self._request("GET")

    async def change(self, changes: FaultChanges) -> SimulatedFaults:
        """Change the faults of the simulated service for every worker, and return all its faults.

        Raises:
            ExternalServiceUnavailableError: The service does not answer, or is not a simulated one.
            StorageUnavailableError: The store of the shared faults is unavailable.
        """
        await self.apply_shared()
        if self._shared_faults is not None and changes:
            await self._shared_faults.set(changes)
        faults = await self._request("PUT", changes)
        self._applied = {**self._applied, **changes}
        return faults

    async def apply_shared(self) -> None:
        """Apply the shared faults to the service in this process, if another worker has changed them."""
        if self._shared_faults is None:
            return
        try:
            shared = await self._shared_faults.get()
        except StorageUnavailableError:
            return  # the faults that were applied last remain
        if shared != self._applied:
            await self._request("PUT", shared)
            self._applied = shared

    async def _request(self, method: str, changes: FaultChanges | None = None) -> SimulatedFaults:
        """Read or change the faults of the service."""
        try:
            answer = await self._client.request(method, "/faults", json=changes)
            answer.raise_for_status()
            faults = answer.json()
            return SimulatedFaults(float(faults["failure_rate"]), int(faults["latency_ms"]))
        except (*NO_ANSWER, ValueError, KeyError, TypeError) as error:  # a real service has no /faults
            raise ExternalServiceUnavailableError from error
