"""The connections of one worker: their number, and how long each client may keep the server waiting.

All connections are checked once a second, so that requests need no timers. A limit can therefore be exceeded
by up to one second.
"""

from typing import NamedTuple, Protocol, cast

from uvicorn.server import ServerState

from src.resilience.clock import Clock
from src.server.options import ServerOptions


class ClientWait(NamedTuple):
    """The server's wait for an action of a client.

    Attributes:
        action: The expected action. It is equal at two checks if the client has done nothing in between.
        seconds: The longest time that the action may take.
    """

    action: object
    seconds: float


class Connection(Protocol):
    """A connection, as `Connections` uses it."""

    def client_wait(self) -> ClientWait | None:
        """Return the wait for the client; None if the server itself has to act."""
        ...

    def expire(self) -> None:
        """End the connection, since its client took too long."""
        ...

    def close_if_idle(self) -> bool:
        """Close the connection if it has no unanswered request, and return whether it was closed."""
        ...

    def abort_request(self) -> None:
        """End the connection, even if it has an unanswered request."""
        ...


class Connections(ServerState):
    """The state that uvicorn's connections share, and the time for which each has kept the server waiting.

    Args:
        options: The limits.
        clock: Measures the waits.
    """

    def __init__(self, options: ServerOptions, clock: Clock) -> None:
        super().__init__()
        self.options = options
        self.clock = clock
        self._waits: dict[Connection, tuple[object, float]] = {}
        self._longest_waits: list[Connection] = []

    def all(self) -> list[Connection]:
        """Return the open connections."""
        return cast("list[Connection]", list(self.connections))

    def admit(self) -> bool:
        """Return whether one more connection may be opened.

        If the limit is reached, the idle connection that has kept the server waiting for longest is closed.
        Idle connections therefore do not prevent new ones.
        """
        if len(self.connections) < self.options.max_connections:
            return True
        while self._longest_waits:
            longest = self._longest_waits.pop(0)
            if longest in self.connections and self._is_unchanged(longest) and longest.close_if_idle():
                return True
        return False

    def _is_unchanged(self, connection: Connection) -> bool:
        """Return whether the client has done nothing since the last check."""
        wait = connection.client_wait()
        return wait is not None and wait.action == self._waits[connection][0]

    def sweep(self) -> None:
        """Check all connections, and end those whose clients took too long."""
        now = self.clock.monotonic()
        waits: dict[Connection, tuple[object, float]] = {}
        for connection in self.all():
            wait = connection.client_wait()
            if wait is None:
                continue
            action, since = self._waits.get(connection, (None, now))
            waits[connection] = wait.action, (since if action == wait.action else now)
            if now - waits[connection][1] >= wait.seconds:
                connection.expire()
        self._waits = waits
        self._longest_waits = sorted(waits, key=lambda connection: waits[connection][1])
