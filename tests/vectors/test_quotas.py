"""Quotas as text, as limits reads them, and the headers that describe a quota, as an IETF draft has them."""

import pytest

from src.resilience.http.http_date import retry_after_seconds
from src.resilience.rate_limiter.headers import QuotaHeaders
from src.resilience.rate_limiter.options import Quota
from src.resilience.rate_limiter.quota_text import parse_quotas
from src.resilience.rate_limiter.store import Decision

MINUTE, HOUR, DAY = 60, 3_600, 86_400

QUOTAS: dict[str, list[tuple[int, int]]] = {
    # limits, test_ratelimit_parser.py, test_singles
    "1 per second": [(1, 1)],
    "1/SECOND": [(1, 1)],
    "1 / Second": [(1, 1)],
    "1 per minute": [(1, MINUTE)],
    "1/MINUTE": [(1, MINUTE)],
    "1/Minute": [(1, MINUTE)],
    "1 per hour": [(1, HOUR)],
    "1/HOUR": [(1, HOUR)],
    "1/Hour": [(1, HOUR)],
    "1 per day": [(1, DAY)],
    "1/DAY": [(1, DAY)],
    "1 / Day": [(1, DAY)],
    # limits, test_multiples
    "1 per 3 hour": [(1, 3 * HOUR)],
    "1 per 2 hours": [(1, 2 * HOUR)],
    "1/2 day": [(1, 2 * DAY)],
    # limits, test_parse_many and test_parse_many_csv
    "1 per 3 hour; 1 per second": [(1, 3 * HOUR), (1, 1)],
    "1 per 3 hour, 1 per second": [(1, 3 * HOUR), (1, 1)],
    # slowapi and limits, documentation of the notation
    "10/minute": [(10, MINUTE)],
    "100/hour; 10/minute": [(100, HOUR), (10, MINUTE)],
    "5 per 10 seconds": [(5, 10)],
}


@pytest.mark.parametrize(("text", "quotas"), QUOTAS.items(), ids=QUOTAS)
def test_a_text_is_the_quotas_that_limits_reads(text: str, quotas: list[tuple[int, int]]) -> None:
    assert [(quota.limit, quota.window_seconds) for quota in parse_quotas(text)] == quotas


@pytest.mark.parametrize(
    "text",
    [
        "1 per millenium",  # limits, test_invalid_string_parse
        "meow",
        "1 per yearl; 2 per decade",  # limits, test_invalid_string_parse_many
        # Where ours differs: limits also reads months and years, of 30 and 360 days. Ours has no unit whose
        # length depends on the calendar; write "1/30 days".
        "1 per month",
        "1/YEAR",
    ],
)
def test_another_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no quota"):
        parse_quotas(text)


@pytest.mark.parametrize(
    ("name", "quota", "expected"),
    [  # draft-ietf-httpapi-ratelimit-headers, RateLimit-Policy: the quota and the window
        ("default", Quota(100, 10), '"default";q=100;w=10'),
        ("burst", Quota(100, 60), '"burst";q=100;w=60'),
        ("daily", Quota(1_000, DAY), '"daily";q=1000;w=86400'),
        ("permin", Quota(50, MINUTE), '"permin";q=50;w=60'),
        ("perhr", Quota(1_000, HOUR), '"perhr";q=1000;w=3600'),
        ("somepolicy", Quota(10_000, 1_000), '"somepolicy";q=10000;w=1000'),
        ("fixedwindow", Quota(100, 60), '"fixedwindow";q=100;w=60'),
        ("dynamic", Quota(15, 20), '"dynamic";q=15;w=20'),
        ("day", Quota(5_000, DAY), '"day";q=5000;w=86400'),
        ("sliding", Quota(12, 1), '"sliding";q=12;w=1'),
    ],
)
def test_a_policy_is_written_as_in_the_draft(name: str, quota: Quota, expected: str) -> None:
    assert QuotaHeaders(name, quota).policy == (b"ratelimit-policy", expected.encode())


@pytest.mark.parametrize(
    ("name", "remaining", "seconds", "expected"),
    [  # draft-ietf-httpapi-ratelimit-headers, RateLimit: the units left and the seconds until the reset
        ("default", 50, 30, '"default";r=50;t=30'),
        ("problemPolicy", 0, 10, '"problemPolicy";r=0;t=10'),
        ("default", 1, 7, '"default";r=1;t=7'),
        ("daily", 1, 36_400, '"daily";r=1;t=36400'),
        ("somepolicy", 10_000, 10, '"somepolicy";r=10000;t=10'),
        ("default", 0, 50, '"default";r=0;t=50'),
        ("dayLimit", 100, 36_000, '"dayLimit";r=100;t=36000'),
        ("basic", 60, 58, '"basic";r=60;t=58'),
        ("basic", 20, 56, '"basic";r=20;t=56'),
        ("fixedwindow", 99, 50, '"fixedwindow";r=99;t=50'),
        ("dynamic", 9, 50, '"dynamic";r=9;t=50'),
        ("dynamic", 0, 20, '"dynamic";r=0;t=20'),
        ("day", 100, 36_000, '"day";r=100;t=36000'),
        ("default", 50, 59.2, '"default";r=50;t=60'),  # whole seconds, and not too early
    ],
)
def test_what_is_left_is_written_as_in_the_draft(
    name: str, remaining: int, seconds: float, expected: str
) -> None:
    quota = Quota(10_000, DAY)
    decision = Decision(remaining > 0, quota, remaining, 0.0, float(seconds))
    assert (b"ratelimit", expected.encode()) in QuotaHeaders(name, quota).of_decision(decision, 0.0)


NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110, section 5.6.7."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),  # RFC 9110, section 10.2.3
        ("0", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),  # section 5.6.7: the three forms of a date
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        ("Sun, 06 Nov 1994 08:48:37 GMT", -60.0),
        ("-1", None),  # urllib3, test_respect_retry_after_header_invalid: not a number of seconds
        ("1.5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_in_the_rfc(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds
