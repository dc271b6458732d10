"""Dates, and the times of `Retry-After`, in the headers of HTTP messages."""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 86_400.0
"""The limit of `Retry-After`. A longer one counts as this."""


def http_date(value: str) -> float | None:
    """Return the Unix time of a date in any form of RFC 9110, section 5.6.7; None if it can't be read.

    A date without a time zone is in UTC, like all dates of HTTP.
    """
    with suppress(ValueError, OverflowError):
        date: datetime = parsedate_to_datetime(value)
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    return None


def retry_after_seconds(value: str, now: float) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, section 10.2.3).

    Args:
        value: The value of the header: whole seconds, or a date.
        now: Unix time.

    Returns:
        The seconds, at most `MAX_RETRY_AFTER_SECONDS` and negative for a date of the past; None if the value
        is neither a number nor a date.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    date = http_date(text)
    return None if date is None else min(date - now, MAX_RETRY_AFTER_SECONDS)
