"""One measurement, and the way between a timestamp's text and its number.

Inside the service an instant is an integer: microseconds since 1970-01-01T00:00:00Z, negative before. Both
directions are exact integer arithmetic; no float comes near it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import orjson

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date.max.toordinal()

_TIMESTAMP = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
    r"(?:\.(?P<fraction>\d+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<offset_hour>\d{2}):(?P<offset_minute>\d{2}))?",
    re.ASCII,
)


_PLAIN_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = 86_400_000_000 * (date.min.toordinal() - _EPOCH_DAY)
_LAST_US = 86_400_000_000 * (_LAST_DAY + 1 - _EPOCH_DAY) - 1
_EPOCH_UTC = _EPOCH.replace(tzinfo=None)  # which is written without an offset


class Point(NamedTuple):
    """One measurement.

    Attributes:
        type: Name of what was measured.
        timestamp_us: When, in microseconds since 1970-01-01T00:00:00Z.
        value: How much: any finite double.
        labels: The labels as `labels_text` writes them; empty: none.
    """

    type: str
    timestamp_us: int
    value: float
    labels: str = ""


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as text: equal for equal labels, empty for none."""
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode() if labels else ""


def parse_timestamp(text: str) -> int:
    """Read an RFC 3339 timestamp.

    A space may stand for the `T`, letters may be small, an absent offset means UTC, and what a fraction says
    beyond microseconds is cut off. A leap second (`:60`) has no place of its own on the time line and is
    refused.

    Returns:
        Microseconds since 1970-01-01T00:00:00Z.

    Raises:
        ValueError: It is none, or lies outside the years 1 to 9999 of UTC. The message is fit for a user.
    """
    if (plain := _parse_plain_timestamp(text)) is not None:
        return plain
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 timestamp such as 2026-01-31T12:00:00Z")
    try:
        day = date.fromisoformat(match["date"]).toordinal() - _EPOCH_DAY
    except ValueError:
        raise ValueError(f"there is no such date as {match['date']}") from None
    hour, minute, second = match["hour"], match["minute"], match["second"]
    if second == "60":
        raise ValueError("a leap second cannot be stored; use the second before or after it")
    if hour > "23" or minute > "59" or second > "59":
        raise ValueError(f"there is no such time as {hour}:{minute}:{second}")
    seconds = 86_400 * day + 3600 * int(hour) + 60 * int(minute) + int(second)
    if match["sign"]:
        hour, minute = match["offset_hour"], match["offset_minute"]
        if hour > "23" or minute > "59":
            raise ValueError(f"there is no such offset as {match['sign']}{hour}:{minute}")
        ahead = 3600 * int(hour) + 60 * int(minute)
        seconds -= ahead if match["sign"] == "+" else -ahead
    if not 1 <= seconds // 86_400 + _EPOCH_DAY <= _LAST_DAY:
        raise ValueError("the timestamp lies outside the years 0001 to 9999 of UTC")
    return 1_000_000 * seconds + int((match["fraction"] or "")[:6].ljust(6, "0"))


def _parse_plain_timestamp(text: str) -> int | None:
    """Read a timestamp as nearly everybody writes it, in a third of the time; None where it needs thought."""
    if not _PLAIN_TIMESTAMP.fullmatch(text):
        return None
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return None
    timestamp_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return timestamp_us if _FIRST_US <= timestamp_us <= _LAST_US else None


def format_timestamp(timestamp_us: int) -> str:
    """Write an instant as RFC 3339 in UTC, ending in `Z`; a fraction, of six digits, only when not zero.

    Args:
        timestamp_us: Microseconds since 1970-01-01T00:00:00Z, in the years 1 to 9999.

    Raises:
        ValueError: It lies outside those years.
    """
    seconds, fraction = divmod(timestamp_us, 1_000_000)
    return f"{_second(seconds)}.{fraction:06}Z" if fraction else f"{_second(seconds)}Z"


@lru_cache(maxsize=4096)  # what is written in one second is often of it
def _second(seconds: int) -> str:
    try:
        return (_EPOCH_UTC + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise ValueError("the timestamp lies outside the years 0001 to 9999 of UTC") from None


def format_seconds(unix_seconds: float) -> str:
    """Write a clock's reading as `format_timestamp` does, to the nearest microsecond.

    Args:
        unix_seconds: Seconds since 1970-01-01T00:00:00Z, in the years 1 to 9999.

    Raises:
        ValueError: It lies outside those years.
    """
    return format_timestamp(round(unix_seconds * 1e6))
