"""Windows of time, in microseconds since 1970."""

from dataclasses import dataclass

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class Window:
    """The time after `start_us` (exclusive) up to `end_us` (inclusive), in microseconds since 1970.

    Raises:
        ValueError: The window ends before it starts.
    """

    start_us: int
    end_us: int

    def __post_init__(self) -> None:
        if self.end_us < self.start_us:
            raise ValueError("a window must not end before it starts")

    @classmethod
    def rolling(cls, now_us: int, seconds: int) -> "Window":
        """Return the window of the last `seconds` (0 or more) up to `now_us`."""
        return cls(now_us - 1_000_000 * seconds, now_us)
