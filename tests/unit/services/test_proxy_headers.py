"""Which headers a proxy passes on, and whose an answer is."""

import pytest

from src.services.proxy.headers import (
    are_personal,
    first,
    for_caller,
    for_upstream,
    may_be_kept,
    may_be_shared,
    told_apart_by,
)


def headers(**given):
    return tuple((name.replace("_", "-").encode(), value.encode()) for name, value in given.items())


def names(passed_on):
    return {name.decode() for name, _ in passed_on}


def test_the_upstream_hears_what_the_answer_may_depend_on_and_who_asks_and_nothing_else():
    sent = headers(
        accept="text/html", user_agent="me", authorization="Basic x", cookie="a=b", client_id="billing",
        host="here", x_api_key="secret", connection="close, X-Private", x_private="1", te="trailers",
        keep_alive="5", proxy_authorization="Basic y", upgrade="h2c", transfer_encoding="chunked",
        accept_encoding="gzip", if_none_match='"1"', range="bytes=0-1", content_length="3",
        expect="100-continue", x_forwarded_for="10.0.0.1", forwarded="for=10.0.0.1",
        x_http_method_override="DELETE", x_request_id="theirs", traceparent="00-1-2-01", tracestate="a=1",
        x_original_url="/admin", x_rewrite_url="/admin", x_client_ip="10.0.0.1", true_client_ip="10.0.0.1",
        cf_connecting_ip="10.0.0.1", x_forwarded_server="a",
        x_whatever="1",
    )  # fmt: skip
    passed_on = for_upstream(sent, b"ours")
    assert names(passed_on) == {
        "accept", "user-agent", "authorization", "cookie", "client-id", "accept-encoding", "connection",
        "x-request-id",
        "traceparent", "tracestate",
    }  # fmt: skip
    assert first(passed_on, b"accept-encoding") == b"identity"
    assert first(passed_on, b"x-request-id") == b"ours"


def test_the_caller_is_answered_in_the_upstreams_words_but_for_those_that_are_ours_to_say():
    sent = headers(
        content_type="text/html", content_length="3", etag='"1"', location="/elsewhere", set_cookie="a=b",
        connection="X-Hop", x_hop="1", upgrade="h2c", server="nginx", date="now", age="4",
        x_cache="HIT", x_queue_wait_ms="1", content_security_policy="default-src *", alt_svc='h3=":443"',
        clear_site_data='"*"', strict_transport_security="max-age=1", nel="{}", report_to="{}",
        reporting_endpoints='a="//evil.example"', accept_ch="DPR", critical_ch="DPR",
        origin_agent_cluster="?1",
    )  # fmt: skip
    expected = {"content-type", "content-length", "etag", "location", "set-cookie"}
    assert names(for_caller(200, sent)) == expected


@pytest.mark.parametrize(
    ("status", "answer", "passed_on"),
    [
        (200, {"content_length": "3"}, {"content-length"}),
        (200, {"content_length": "3", "transfer_encoding": "chunked"}, set()),
        (204, {"content_length": "3"}, set()),
        (304, {"content_length": "3"}, set()),
    ],
)
def test_a_length_that_is_not_the_bodys_stays_behind(status, answer, passed_on):
    assert names(for_caller(status, headers(**answer))) == passed_on


@pytest.mark.parametrize("name", ["authorization", "cookie"])
def test_a_request_that_speaks_for_somebody_is_personal(name):
    assert are_personal(headers(accept="*/*", **{name: "x"}))
    assert not are_personal(headers(accept="*/*"))


def test_requests_are_told_apart_by_what_they_accept():
    sent = headers(accept="text/html", accept_language="de", user_agent="me")
    assert names(told_apart_by(sent)) == {"accept", "accept-language"}


@pytest.mark.parametrize(
    ("answer", "shared", "kept"),
    [
        ({}, True, True),
        ({"cache_control": "max-age=60, public"}, True, True),
        ({"vary": "Accept, Accept-Language, accept-encoding"}, True, True),
        ({"cache_control": "max-age=60, No-Store"}, True, False),
        ({"cache_control": "no-cache"}, True, False),
        ({"cache_control": 'Private="x-a"'}, False, False),
        ({"set_cookie": "a=b"}, False, False),
        ({"vary": "Accept, Origin"}, False, False),
        ({"vary": "*"}, False, False),
    ],
)
def test_an_answer_says_whose_it_is(answer, shared, kept):
    given = headers(**answer)
    assert (may_be_shared(given), may_be_kept(given)) == (shared, kept)


def test_a_directive_may_stand_in_any_of_several_headers():
    given = headers(cache_control="max-age=60") + headers(cache_control="private")
    assert not may_be_shared(given)
