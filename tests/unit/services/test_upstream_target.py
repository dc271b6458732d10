"""The URLs of proxied requests, and the paths that are rejected."""

from urllib.parse import unquote_to_bytes

import pytest

from src.services.proxy import target
from src.services.proxy.target import MAX_ENCODINGS, UnsafeTargetError, UpstreamTarget, without_parameter

TARGET = UpstreamTarget("https://bank.example:8443/v1/")


@pytest.mark.parametrize(
    ("path", "query", "url"),
    [
        (b"/score", b"cpf=12345678909", "https://bank.example:8443/v1/score?cpf=12345678909"),
        (b"/", b"", "https://bank.example:8443/v1/"),
        (b"/a%20b/%C3%A9;v=1", b"", "https://bank.example:8443/v1/a%20b/%C3%A9;v=1"),
        (b"/a//b/", b"q=%2f..%2f&&x=&=y", "https://bank.example:8443/v1/a//b/?q=%2f..%2f&&x=&=y"),
        (b"/x@evil.example:1/.hidden/...", b"", "https://bank.example:8443/v1/x@evil.example:1/.hidden/..."),
        (b"/a/b:c", b"u=http://evil.example/", "https://bank.example:8443/v1/a/b:c?u=http://evil.example/"),
    ],
)
def test_path_and_query_are_passed_on_unchanged(path, query, url):
    assert str(TARGET.url(path, query)) == url


@pytest.mark.parametrize(
    "path",
    [
        b"//evil.example/", b"/%2fevil.example/", b"/%252fevil.example",  # another host
        b"/http://evil.example/", b"/HTTPS:evil.example", b"/ht%74p%3a//evil.example", b"/a+b.c-d:x",
        b"/..", b"/../", b"/a/../../b", b"/.", b"/a/./b",  # out of the base path
        b"/%2e%2e/a", b"/.%2E/a", b"/%252e%252e/a", b"/%25252e./a", b"/%%32e%2e/a", b"/..;x=y/a", b"/%2e;/a",
        b"/a%2fb", b"/a%2Fb", b"/a%252fb", b"/..%2fb", b"/a\\b", b"/a%5cb", b"/a%255Cb",  # disguised slashes
        b"/a%0d%0aHost:%20evil.example", b"/a%250a", b"/a%00", b"/a%7f", b"/a\r\nb", b"/a\x00", b"/a b",
        b"/\xc3\xa9", b"/a#b", b"/a?b",
    ],
)  # fmt: skip
def test_a_path_outside_the_base_path_is_rejected(path):
    with pytest.raises(UnsafeTargetError, match="The path"):
        TARGET.url(path)


def percent_encoded(times):
    return b"/%" + b"25" * (times - 1) + b"41"


def test_a_path_may_be_encoded_only_a_few_times(monkeypatch):
    passes = []

    def unquote(path):
        passes.append(path)
        return unquote_to_bytes(path)

    monkeypatch.setattr(target, "unquote_to_bytes", unquote)
    assert TARGET.url(percent_encoded(MAX_ENCODINGS)).raw_path == b"/v1" + percent_encoded(MAX_ENCODINGS)
    for times in (MAX_ENCODINGS + 1, 30_000):
        passes.clear()
        with pytest.raises(UnsafeTargetError, match="more than"):
            TARGET.url(percent_encoded(times))
        assert len(passes) == MAX_ENCODINGS + 1  # each is linear in the path's length


@pytest.mark.parametrize("query", [b"a b", b"a\r\nb", b"\xff", b"a#b"])
def test_a_query_with_characters_invalid_in_a_request_line_is_rejected(query):
    with pytest.raises(UnsafeTargetError, match="visible ASCII"):
        TARGET.url(b"/a", query)


def test_a_url_that_is_too_long_is_rejected():
    with pytest.raises(UnsafeTargetError, match="too long"):
        TARGET.url(b"/" + b"a" * 100_000)


def test_without_a_base_path_the_path_is_unchanged():
    assert str(UpstreamTarget("http://provider").url(b"/get", b"a=1")) == "http://provider/get?a=1"


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        (b"a=1&priority=3&b=%2f", b"a=1&b=%2f"),
        (b"priority=3", b""),
        (b"%70riority=3&z&z=&a=b=c", b"z&z=&a=b=c"),
        (b"priority=1&priority=2&priorityx=4", b"priorityx=4"),
        (b"", b""),
    ],
)
def test_one_parameter_is_removed_and_the_others_are_unchanged(query, rest):
    assert without_parameter("priority", query) == rest
