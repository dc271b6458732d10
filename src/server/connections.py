"""The connections of one worker: how many there may be, and how long each may keep the server waiting.

All connections are looked at once a second, which costs a request nothing. So each limit is exceeded by a
second at most.
"""

from typing import NamedTuple, Protocol, cast

from uvicorn.server import ServerState

from src.resilience.clock import Clock
from src.server.options import ServerOptions


class Awaited(NamedTuple):
    """What the server waits for a client to do.

    Attributes:
        what: Equal at two looks if the client has done nothing in between.
        seconds: How long it may take.
    """

    what: object
    seconds: float


class Connection(Protocol):
    """A connection as it is seen from here."""

    def awaited(self) -> Awaited | None:
        """Return what the server waits for; None while it is the server that has something to do."""
        ...

    def expire(self) -> None:
        """End the connection, since its client took too long."""
        ...

    def close_if_idle(self) -> bool:
        """Close the connection if no request of it is under way, and return whether that was so."""
        ...

    def give_up(self) -> None:
        """End the connection, although its answer is not complete."""
        ...


class Connections(ServerState):
    """What uvicorn shares between the connections, and how long each has kept the server waiting.

    Args:
        options: The limits.
        clock: Tells the time.
    """

    def __init__(self, options: ServerOptions, clock: Clock) -> None:
        super().__init__()
        self.options = options
        self.clock = clock
        self._waits: dict[Connection, tuple[object, float]] = {}
        self._longest_first: list[Connection] = []

    def open(self) -> list[Connection]:
        """Return the connections that are there."""
        return cast("list[Connection]", list(self.connections))

    def admit(self) -> bool:
        """Return whether one more connection may be held.

        Where there are as many as there may be, the one that has kept the server waiting for longest is
        closed. So connections that send nothing keep nobody out.
        """
        if len(self.connections) < self.options.max_connections:
            return True
        while self._longest_first:
            longest = self._longest_first.pop(0)
            if longest in self.connections and self._still_waits(longest) and longest.close_if_idle():
                return True
        return False

    def _still_waits(self, connection: Connection) -> bool:
        awaited = connection.awaited()
        return awaited is not None and awaited.what == self._waits[connection][0]

    def sweep(self) -> None:
        """End the connections whose clients took too long."""
        now = self.clock.monotonic()
        waits: dict[Connection, tuple[object, float]] = {}
        for connection in self.open():
            awaited = connection.awaited()
            if awaited is None:
                continue
            what, since = self._waits.get(connection, (None, now))
            waits[connection] = awaited.what, (since if what == awaited.what else now)
            if now - waits[connection][1] >= awaited.seconds:
                connection.expire()
        self._waits = waits
        self._longest_first = sorted(waits, key=lambda connection: waits[connection][1])
