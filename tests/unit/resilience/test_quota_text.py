"""Quotas written as text."""

import pytest

from src.resilience.rate_limiter.options import Quota
from src.resilience.rate_limiter.quota_text import parse_quotas


@pytest.mark.parametrize(
    ("text", "quotas"),
    [
        ("10/minute", (Quota(10, 60),)),
        ("10 / minutes", (Quota(10, 60),)),
        ("10 per minute", (Quota(10, 60),)),
        ("5/10 seconds", (Quota(5, 10),)),
        ("5 per 10s", (Quota(5, 10),)),
        ("1000/d", (Quota(1000, 86_400),)),
        ("2/HOUR", (Quota(2, 3600),)),
        ("10/minute; 1000/day", (Quota(10, 60), Quota(1000, 86_400))),
        ("1/s,100/h", (Quota(1, 1), Quota(100, 3600))),
    ],
)
def test_a_text_is_parsed_into_quotas(text: str, quotas: tuple[Quota, ...]) -> None:
    assert parse_quotas(text) == quotas


@pytest.mark.parametrize(
    "text",
    ["", "10", "10/", "/minute", "10/fortnight", "ten/minute", "-1/minute", "1.5/minute", "10/minute;",
     "10/ss", "10 perminute", "1\u0660/minute", "10/minute 5/day"],
)  # fmt: skip
def test_an_error_names_the_text_that_is_no_quota(text: str) -> None:
    with pytest.raises(ValueError, match="is no quota"):
        parse_quotas(text)


@pytest.mark.parametrize("text", ["0/minute", "1/0 seconds", "10/999999999 days"])
def test_an_error_names_the_quota_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}': (limit|window_seconds) must be"):
        parse_quotas(f"1/day; {text}")
