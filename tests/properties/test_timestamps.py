"""Timestamps: the fast parser agrees with the complete one."""

import re

from hypothesis import given
from hypothesis import strategies as st

from src.analytics import points


def two(highest):
    return st.integers(0, highest).map("{:02}".format)


TIMESTAMPS = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    st.sampled_from(["0000", "0001", "1969", "1970", "2024", "2026", "9999", "26", "20260"]),
    two(13), two(32), st.sampled_from("Tt "), two(25), two(61), two(61),
    st.sampled_from(["", "."]) | st.from_regex(r"\.[0-9]{1,9}", fullmatch=True),
    st.sampled_from(["", "Z", "z", "+00:00", "-00:00"])
    | st.builds("{}{}:{}".format, st.sampled_from("+-"), two(25), two(61)),
)  # fmt: skip


def outcome(text):
    try:
        return points.parse_timestamp(text)
    except ValueError as error:
        return str(error)


@given(text=TIMESTAMPS)
def test_both_parsers_agree(text):
    quick = points._PLAIN_TIMESTAMP
    found = outcome(text)
    points._PLAIN_TIMESTAMP = re.compile("(?!)")  # no point matches this filter
    try:
        assert found == outcome(text)
    finally:
        points._PLAIN_TIMESTAMP = quick
