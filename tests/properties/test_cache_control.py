"""The proxy can parse any headers of an upstream or a client, and finds every directive in them."""

from hypothesis import example, given
from hypothesis import strategies as st

from src.services.proxy.cache_control import copy_limits, reuse_rules

NAMES = st.sampled_from([b"cache-control", b"expires", b"date", b"age", b"pragma", b"vary", b"set-cookie"])
VALUES = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from([
            b"max-age", b"s-maxage", b"no-store", b"no-cache", b"private", b"must-revalidate",
            b"=", b'"', b",", b"\\", b" ", b";", b"0", b"60", b"-1", b"9" * 5000,
            b"Fri, 15 Jan 2027 08:00:00 GMT",
        ]),
        max_size=12,
    ).map(b"".join),
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple)


def rules_of(headers):
    return reuse_rules(headers, now=1_800_000_000.0, sent_at=10.0, received_at=11.5)


@given(HEADERS)
@example(((b"cache-control", b"max-age=" + b"9" * 5000),))
def test_any_headers_can_be_read(headers):
    rules = rules_of(headers)
    assert rules.generated_at <= 10.0  # an answer is at least as old as its request
    limits = copy_limits(headers)
    assert limits.max_age_seconds >= 0
    assert limits.min_fresh_seconds >= 0


@given(HEADERS, HEADERS, st.sampled_from([b"no-store", b"no-cache", b"private", b"max-age=0, s-maxage=0"]))
@example(((b"cache-control", b'x="'),), ((b"cache-control", b'"'),), b"no-store")
def test_a_directive_in_a_separate_header_always_counts(before, after, directive):
    rules = rules_of((*before, (b"cache-control", directive), *after))
    age = 11.5 - rules.generated_at
    assert not rules.is_shared or age >= rules.lifetime_seconds
