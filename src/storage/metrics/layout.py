"""Where in Redis metrics lie.

========================  ====================================================================================
``m:{t}:all``             hash: the rollup of all points of type t, in its one field ``all``
``m:{t}:d``               hash: rollups by day
``m:{t}:h:<day>``         hash: rollups by hour of that day
``m:{t}:n:<hour>``        hash: rollups by minute of that hour
``m:{t}:p:all``           hash: the sketch of all points, page by page
``m:{t}:p:<s>:<number>``  hash: the sketch of one bucket of s seconds
``m:{t}:raw:<hour>``      sorted set: the hour's points, by µs within it
``m:{t}:hours``           sorted set: the hours that have points
``m:{t}:seq``             number of points ever stored
``types``                 sorted set: every type, by its latest timestamp
``idem:<digest>``         an idempotency record
========================  ====================================================================================

Days, hours and minutes are numbered from 1970 on.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from src.analytics.fold import ALL_TIME
from src.analytics.window import DAY_US, HOUR_US
from src.storage.redis.connection import Command

_PREFIX = "m:{%s}:"
_MEMBER = struct.Struct(">HId")
"""A stored point: its arrival in 6 bytes, and its value."""
_VALUE_OF_MEMBER = struct.Struct(">6xd")


class RawRange(NamedTuple):
    """Points that lie in one sorted set, the one of their hour.

    Attributes:
        hour: Number of their hour.
        low: The first µs within it.
        high: The µs after the last.
    """

    hour: int
    low: int
    high: int


def key_of(metric_type: str, suffix: str) -> str:
    """Return one of the keys of a type."""
    return _PREFIX % metric_type + suffix


def rollup_place(step_us: int, number: int) -> tuple[str, int | str, int | None]:
    """Return where the rollup of a bucket is.

    Args:
        step_us: Length of the bucket: a day, an hour or a minute; or 0, of `ALL_TIME`.
        number: Of the bucket.

    Returns:
        The key's suffix, the field, and the µs at which the last of the key's buckets ends; `ALL_TIME` has no
        end.
    """
    if step_us == DAY_US:
        return "d", number, (number + 1) * DAY_US
    if step_us == HOUR_US:
        day, hour = divmod(number, 24)
        return f"h:{day}", hour, (day + 1) * DAY_US
    if (step_us, number) == ALL_TIME:
        return "all", "all", None
    hour, minute = divmod(number, 60)
    return f"n:{hour}", minute, (hour + 1) * HOUR_US


def sketch_place(step_us: int, number: int) -> tuple[str, int | None]:
    """Return where the sketch of a bucket is: the key's suffix, and the µs at which it ends, if ever."""
    if (step_us, number) == ALL_TIME:
        return "p:all", None
    return f"p:{step_us // 1_000_000}:{number}", (number + 1) * step_us


def raw_ranges(first_us: int, stop_us: int) -> Iterator[RawRange]:
    """Yield where the points from `first_us` up to and without `stop_us` are, hour by hour."""
    for hour in range(first_us // HOUR_US, (stop_us - 1) // HOUR_US + 1):
        start = hour * HOUR_US
        yield RawRange(hour, max(first_us - start, 0), min(stop_us - start, HOUR_US))


def raw_bounds(metric_type: str, raw: RawRange) -> Command:
    """Return the arguments by which a command such as ZCOUNT knows the points of a range."""
    return key_of(metric_type, f"raw:{raw.hour}"), raw.low, f"({raw.high}"


def points_of(hour: int, reply: Sequence[bytes]) -> list[tuple[int, int, float]]:
    """Return (timestamp in µs, arrival, value) of each point that Redis returned with its score."""
    start = hour * HOUR_US
    members = map(_MEMBER.unpack, reply[::2])
    return [
        (start + offset, high << 32 | low, value)
        for (high, low, value), offset in zip(members, map(int, reply[1::2]), strict=True)
    ]


def values_of(reply: Sequence[bytes]) -> list[float]:
    """Return the value of each point that Redis returned without its score."""
    return [value for (value,) in _VALUE_OF_MEMBER.iter_unpack(b"".join(reply))]
