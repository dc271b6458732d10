"""The log of resilience events, which all workers share: its events, and the port that storage implements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event in the log.

    Attributes:
        id: Position in the log. Later events have later positions.
        body: A JSON object: `at`, `worker`, `policy`, `event`, and the details of the event.
    """

    id: str
    body: bytes


class EventLog(Protocol):
    """The last events of all workers. Each method may raise `StorageUnavailableError`."""

    async def append(self, bodies: Sequence[bytes]) -> None:
        """Write events, in order. The oldest events are deleted to make room."""
        ...

    async def read(self, after: str | None, limit: int) -> list[LoggedEvent]:
        """Return up to `limit` events after the position `after`, oldest first; None: from the start.

        The log need not contain the position.
        """
        ...
