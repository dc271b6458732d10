"""Windows: stretches of time, in microseconds since 1970.

A bucket of length `step` and number `index` holds the instants from `index * step` up to and without
`(index + 1) * step`; numbers of buckets before 1970 are negative.
"""

from dataclasses import dataclass

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class Window:
    """The instants after `start_us` up to and with `end_us`, in microseconds since 1970.

    Raises:
        ValueError: It ends before it starts.
    """

    start_us: int
    end_us: int

    def __post_init__(self) -> None:
        if self.end_us < self.start_us:
            raise ValueError("a window must not end before it starts")

    @classmethod
    def rolling(cls, now_us: int, seconds: int) -> "Window":
        """Return the last `seconds` (0 or more) before `now_us`: now included, the far edge not."""
        return cls(now_us - 1_000_000 * seconds, now_us)
