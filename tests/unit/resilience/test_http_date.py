"""Dates in the headers of HTTP messages."""

import pytest

from src.resilience.http.http_date import http_date


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Fri, 15 Jan 2027 08:00:00 GMT", 1_800_000_000),
        ("Friday, 15-Jan-27 08:00:00 GMT", 1_800_000_000),
        ("Fri Jan 15 08:00:00 2027", 1_800_000_000),
        ("Fri, 15 Jan 2027 10:00:00 +0200", 1_800_000_000),
        ("", None),
        ("0", None),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
    ],
)
def test_a_date_header_is_read_as_unix_time(value, seconds):
    assert http_date(value) == seconds
