"""Dates in the headers of HTTP messages."""

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def http_date(value: str) -> float | None:
    """Return the Unix time of a date in any form of RFC 9110, section 5.6.7; None if `value` is not a date.

    A date without a time zone is in UTC, like all dates of HTTP.
    """
    with suppress(ValueError, OverflowError):
        date: datetime = parsedate_to_datetime(value)
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    return None
