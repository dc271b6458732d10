"""Timestamps in RFC 3339, exact to the microsecond."""

import pytest

from src.analytics.points import format_seconds, format_timestamp, parse_timestamp

NOON = 1_769_860_800_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31t12:00:00z", NOON),
        ("2026-01-31 12:00:00", NOON),
        ("2026-01-31T12:00:00-00:00", NOON),
        ("2026-01-31T14:00:00+02:00", NOON),
        ("2026-01-31T02:30:00-09:30", NOON),
        ("2026-02-01T11:59:00+23:59", NOON),
        ("2026-01-31T12:00:00.5Z", NOON + 500_000),
        ("2026-01-31T12:00:00.000001Z", NOON + 1),
        ("2026-01-31T12:00:00.0000019999999999999999999Z", NOON + 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_a_timestamp_is_parsed(text, expected):
    assert parse_timestamp(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an RFC 3339 timestamp"),
        ("yesterday", "not an RFC 3339 timestamp"),
        ("2026-01-31", "not an RFC 3339 timestamp"),
        ("2026-01-31T12:00", "not an RFC 3339 timestamp"),
        ("2026-01-31T12:00:00,5Z", "not an RFC 3339 timestamp"),
        ("2026-01-31T12:00:00.Z", "not an RFC 3339 timestamp"),
        ("2026-01-31T12:00:00+02", "not an RFC 3339 timestamp"),
        ("2026-01-31T12:00:00+0200", "not an RFC 3339 timestamp"),
        ("2026-01-31T12:00:00Z\n", "not an RFC 3339 timestamp"),
        (" 2026-01-31T12:00:00Z", "not an RFC 3339 timestamp"),
        ("20260131T120000Z", "not an RFC 3339 timestamp"),
        ("2026-W05-6T12:00:00Z", "not an RFC 3339 timestamp"),
        ("2026-031T12:00:00Z", "not an RFC 3339 timestamp"),
        ("1769860800", "not an RFC 3339 timestamp"),
        ("\uff11\uff19\uff17\uff10-01-01T00:00:00Z", "not an RFC 3339 timestamp"),
        ("2026-02-29T12:00:00Z", "the date 2026-02-29 does not exist"),
        ("2026-13-01T12:00:00Z", "the date 2026-13-01 does not exist"),
        ("0000-01-01T12:00:00Z", "the date 0000-01-01 does not exist"),
        ("2026-01-31T24:00:00Z", "the time 24:00:00 does not exist"),
        ("2026-01-31T12:60:00Z", "the time 12:60:00 does not exist"),
        ("2016-12-31T23:59:60Z", "leap second"),
        ("2026-01-31T12:00:00+24:00", "the offset"),
        ("2026-01-31T12:00:00+02:60", "the offset"),
        ("0001-01-01T00:00:00+00:01", "outside the years"),
        ("9999-12-31T23:59:59-00:01", "outside the years"),
    ],
)
def test_an_invalid_timestamp_is_rejected_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_timestamp(text)


@pytest.mark.parametrize(
    ("timestamp_us", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (NOON, "2026-01-31T12:00:00Z"),
        (NOON + 1, "2026-01-31T12:00:00.000001Z"),
        (NOON + 500_000, "2026-01-31T12:00:00.500000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_timestamp_is_formatted_and_parsed_back(timestamp_us, expected):
    assert format_timestamp(timestamp_us) == expected
    assert parse_timestamp(expected) == timestamp_us


@pytest.mark.parametrize("timestamp_us", [-62_135_596_800_000_001, 253_402_300_800_000_000])
def test_a_year_has_exactly_four_digits(timestamp_us):
    with pytest.raises(ValueError, match="outside the years"):
        format_timestamp(timestamp_us)


def test_seconds_are_formatted_to_the_nearest_microsecond():
    assert format_seconds(1_769_860_800.0) == "2026-01-31T12:00:00Z"
    assert format_seconds(1_769_860_800.1234567) == "2026-01-31T12:00:00.123457Z"
    assert format_seconds(-0.0000004) == "1970-01-01T00:00:00Z"
