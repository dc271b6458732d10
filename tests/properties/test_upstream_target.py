"""For all requests, the proxy calls only its own upstream, and nothing above the base path."""

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from src.services.proxy.target import UnsafeTargetError, UpstreamTarget, without_parameter

TARGET = UpstreamTarget("http://upstream.example:9000/base")

PIECES = [
    "/", "//", ".", "..", "%2e", "%2E", "%252e", "%2f", "%252F", "%5c", "\\", ";", ":", "@", "http:",
    "https://", "evil.example", "user:pass@evil.example", "[::1]", "%0d%0a", "\r\n", "%00", "?", "#", "%",
    "%zz", "%25", "a", "ä", " ", "..;", "&", "=", "priority", "+",
]  # fmt: skip

hostile = st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(str.encode)
anything = st.binary(max_size=60) | hostile


@given(path=anything, query=anything)
def test_the_url_never_leaves_the_upstream(path, query):
    try:
        url = TARGET.url(b"/" + path, query)
    except UnsafeTargetError:
        return
    assert (url.scheme, url.host, url.port, url.userinfo) == ("http", "upstream.example", 9000, b"")
    sent, _, sent_query = url.raw_path.partition(b"?")
    assert sent.startswith(b"/base/")
    assert all(0x21 <= byte <= 0x7E for byte in url.raw_path)
    # the path, decoded zero to two times, never has a segment "..", or a further slash
    for _ in range(3):
        assert not {b".", b".."} & set(sent.split(b"/"))
        assert b"\\" not in sent
        assert sent.count(b"/") == path.count(b"/") + 2
        sent = unquote_to_bytes(sent)
    assert unquote_to_bytes(url.raw_path.partition(b"?")[0]) == b"/base/" + unquote_to_bytes(path)
    assert unquote_to_bytes(sent_query) == unquote_to_bytes(query)


SEGMENTS = st.text("abcXYZ019-._~!$&'()*+,;=@", min_size=1, max_size=8).filter(
    lambda segment: segment.partition(";")[0] not in {".", ".."}
)


QUERIES = st.text("abc019-._~!$'()*+,;=:@/?&", max_size=20)


@given(segments=st.lists(SEGMENTS, max_size=5), query=QUERIES)
def test_a_path_that_needs_no_encoding_is_passed_on_unchanged(segments, query):
    path = "/" + "/".join(segments)
    target = TARGET.url(path.encode(), query.encode()).raw_path.decode()
    assert target == "/base" + path + (f"?{query}" if query else "")


parameters = st.tuples(
    st.sampled_from(["a", "priority", "%70riority", "b%20c", ""]), st.text("19=%", max_size=3)
)


@given(st.lists(parameters, max_size=6))
def test_only_the_named_parameter_is_removed(pairs):
    query = "&".join(f"{name}={value}" for name, value in pairs).encode()
    kept = "&".join(f"{name}={value}" for name, value in pairs if "riority" not in name).encode()
    assert without_parameter("priority", query) == kept
