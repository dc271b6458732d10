"""What the operator decides about the server."""

from dataclasses import dataclass

UNWIND_SECONDS = 4.0
"""How long the parts of the service may take to close once no request is under way."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of one worker's connections, and how it stops.

    Attributes:
        max_connections: Connections held at a time, at least 1.
        max_head_bytes: Size of a request's head: its request line and its headers.
        head_timeout_seconds: From the beginning of a request, or of a connection, to the end of the head.
        keep_alive_seconds: How long a connection may be idle between two requests.
        shutdown_delay_seconds: After the signal to stop, how long connections are still accepted.
        shutdown_timeout_seconds: After that, how long requests under way may take.
    """

    max_connections: int
    max_head_bytes: int
    head_timeout_seconds: float
    keep_alive_seconds: float
    shutdown_delay_seconds: float
    shutdown_timeout_seconds: float

    @property
    def longest_stop_seconds(self) -> float:
        """How long the process may take from the signal to its end."""
        return longest_stop_seconds(self.shutdown_delay_seconds, self.shutdown_timeout_seconds)


def longest_stop_seconds(shutdown_delay_seconds: float, shutdown_timeout_seconds: float) -> float:
    """Return how long a worker may take from the signal to its end. The arguments are as in the options."""
    return shutdown_delay_seconds + shutdown_timeout_seconds + UNWIND_SECONDS
