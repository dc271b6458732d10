"""Columns of timestamps are parsed as one timestamp is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.analytics.points import format_timestamp, parse_timestamp
from src.api.requests.timestamp_columns import parse_timestamps

instants = st.one_of(
    st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    st.integers(1_800_000_000_000_000, 1_800_086_400_000_000),
)
zones = st.sampled_from(["Z", "", "z", "+02:00", "-11:30", "+00:00"])
texts = st.builds(
    lambda instant, zone, space: format_timestamp(instant)[:-1].replace("T", space) + zone,
    instants, zones, st.sampled_from(["T", "T", "T", " ", "t"]),
)  # fmt: skip


def parsed(text):
    try:
        return parse_timestamp(text)
    except ValueError:
        return None


@given(st.lists(texts, min_size=1, max_size=20))
def test_equal_timestamps_in_different_forms_have_the_same_value(some):
    expected = [parsed(text) for text in some]
    if None in expected:
        with pytest.raises(ValueError):  # noqa: PT011 -- its message is that of the one timestamp
            parse_timestamps(some)
    else:
        assert parse_timestamps(some).tolist() == expected


@given(st.lists(st.text(alphabet="0123456789-T:.Z+é ", min_size=17, max_size=27), min_size=1, max_size=3))
def test_invalid_texts_are_rejected_as_by_the_single_parser(some):
    if None in map(parsed, some):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_timestamps(some)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z",
        "0000-01-01T00:00:00Z", "2026-01-01T00:00:00.Z", "2026-01-01", "", "2026-01-01T00:00:00+25:00",
        "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-01T00:00:0/Z",
        "2026-01-01T00:00:00é", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z",
    ],
)  # fmt: skip
def test_an_invalid_timestamp_is_rejected(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_timestamps(["2026-01-01T00:00:00Z", text])
