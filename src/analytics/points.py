"""The record of a measurement, and the conversion of timestamps between text and number.

Inside the service a timestamp is an integer: microseconds since 1970-01-01T00:00:00Z, negative for earlier
times. Both conversions use exact integer arithmetic without floats.
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


_OUT_OF_RANGE = "the timestamp is outside the years 0001 to 9999 of UTC"

_PLAIN_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US = 86_400_000_000 * (date.min.toordinal() - _EPOCH_DAY)
_LAST_US = 86_400_000_000 * (_LAST_DAY + 1 - _EPOCH_DAY) - 1
_EPOCH_UTC = _EPOCH.replace(tzinfo=None)  # its ISO form has no offset


class Point(NamedTuple):
    """One measurement.

    Attributes:
        type: The name of the metric type.
        timestamp_us: The time in microseconds since 1970-01-01T00:00:00Z.
        value: The value, a finite double.
        labels: The labels in the form of `labels_text`; empty without labels.
    """

    type: str
    timestamp_us: int
    value: float
    labels: str = ""


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as JSON text, which is equal for equal labels, and empty without labels."""
    return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode() if labels else ""


def parse_timestamp(text: str) -> int:
    """Parse an RFC 3339 timestamp.

    A space may replace the `T`, letters may be in lower case, and an absent offset means UTC. Digits of a
    fraction beyond microseconds are dropped. A leap second (`:60`) is rejected, because Unix time has no
    number for it.

    Returns:
        Microseconds since 1970-01-01T00:00:00Z.

    Raises:
        ValueError: `text` is not a timestamp, or is outside the years 1 to 9999 of UTC. The message is for
            the client.
    """
    if (timestamp_us := _parse_plain_timestamp(text)) is not None:
        return timestamp_us
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 timestamp such as 2026-01-31T12:00:00Z")
    try:
        day = date.fromisoformat(match["date"]).toordinal() - _EPOCH_DAY
    except ValueError:
        raise ValueError(f"the date {match['date']} does not exist") from None
    hour, minute, second = match["hour"], match["minute"], match["second"]
    if second == "60":
        raise ValueError("a leap second cannot be stored; use the second before or after it")
    if hour > "23" or minute > "59" or second > "59":
        raise ValueError(f"the time {hour}:{minute}:{second} does not exist")
    seconds = 86_400 * day + 3600 * int(hour) + 60 * int(minute) + int(second)
    if match["sign"]:
        hour, minute = match["offset_hour"], match["offset_minute"]
        if hour > "23" or minute > "59":
            raise ValueError(f"the offset {match['sign']}{hour}:{minute} does not exist")
        ahead = 3600 * int(hour) + 60 * int(minute)
        seconds -= ahead if match["sign"] == "+" else -ahead
    if not 1 <= seconds // 86_400 + _EPOCH_DAY <= _LAST_DAY:
        raise ValueError(_OUT_OF_RANGE)
    return 1_000_000 * seconds + int((match["fraction"] or "")[:6].ljust(6, "0"))


def _parse_plain_timestamp(text: str) -> int | None:
    """Parse a timestamp in the common form, in a third of the time; None for any other text."""
    if not _PLAIN_TIMESTAMP.fullmatch(text):
        return None
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return None
    timestamp_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return timestamp_us if _FIRST_US <= timestamp_us <= _LAST_US else None


def format_timestamp(timestamp_us: int) -> str:
    """Return a timestamp as RFC 3339 in UTC, with `Z`. A fraction has six digits, and is left out if zero.

    Args:
        timestamp_us: Microseconds since 1970-01-01T00:00:00Z, in the years 1 to 9999.

    Raises:
        ValueError: The timestamp is outside these years.
    """
    seconds, fraction = divmod(timestamp_us, 1_000_000)
    return f"{_format_second(seconds)}.{fraction:06}Z" if fraction else f"{_format_second(seconds)}Z"


@lru_cache(maxsize=4096)  # timestamps that are formatted at about the same time often have the same second
def _format_second(seconds: int) -> str:
    try:
        return (_EPOCH_UTC + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise ValueError(_OUT_OF_RANGE) from None


def format_seconds(unix_seconds: float) -> str:
    """Return a Unix time in the form of `format_timestamp`, rounded to the nearest microsecond.

    Args:
        unix_seconds: Seconds since 1970-01-01T00:00:00Z, in the years 1 to 9999.

    Raises:
        ValueError: The time is outside these years.
    """
    return format_timestamp(round(unix_seconds * 1e6))
