"""The options of the server."""

from dataclasses import dataclass

UNWIND_SECONDS = 4.0
"""The longest time in which the parts of the service close, after the last request."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The limits of one worker's connections, and the durations of its stop.

    Attributes:
        max_connections: The largest number of open connections, at least 1.
        max_head_bytes: The largest head of a request: its request line and its headers.
        head_timeout_seconds: The longest time from the beginning of a connection or request to the end of the
            request's head.
        keep_alive_seconds: The longest time for which a connection may be idle between two requests.
        shutdown_delay_seconds: The time for which connections are still accepted after the signal to stop.
        shutdown_timeout_seconds: The time after that in which running requests may end.
    """

    max_connections: int
    max_head_bytes: int
    head_timeout_seconds: float
    keep_alive_seconds: float
    shutdown_delay_seconds: float
    shutdown_timeout_seconds: float

    @property
    def longest_stop_seconds(self) -> float:
        """The longest time from the signal to the end of the process."""
        return longest_stop_seconds(self.shutdown_delay_seconds, self.shutdown_timeout_seconds)


def longest_stop_seconds(shutdown_delay_seconds: float, shutdown_timeout_seconds: float) -> float:
    """Return the longest time from the signal to the end of a worker, for these `ServerOptions`."""
    return shutdown_delay_seconds + shutdown_timeout_seconds + UNWIND_SECONDS
