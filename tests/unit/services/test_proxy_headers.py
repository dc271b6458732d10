"""The headers that the proxy reads and passes on."""

import pytest

from src.services.proxy.headers import (
    are_personal,
    first,
    headers_for_caller,
    headers_for_upstream,
    sharing_headers,
)


def headers(**given):
    return tuple((name.replace("_", "-").encode(), value.encode()) for name, value in given.items())


def names(passed_on):
    return {name.decode() for name, _ in passed_on}


def test_only_known_request_headers_reach_the_upstream():
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
    passed_on = headers_for_upstream(sent, b"ours")
    assert names(passed_on) == {
        "accept", "user-agent", "authorization", "cookie", "client-id", "accept-encoding", "x-request-id",
        "traceparent", "tracestate",
    }  # fmt: skip
    assert first(passed_on, b"accept-encoding") == b"identity"
    assert first(passed_on, b"x-request-id") == b"ours"


def test_hop_by_hop_headers_and_those_about_the_origin_are_not_passed_on():
    sent = headers(
        content_type="text/html", content_length="3", etag='"1"', location="/elsewhere", set_cookie="a=b",
        connection="X-Hop", x_hop="1", upgrade="h2c", server="nginx", date="now", age="4",
        x_cache="HIT", x_queue_wait_ms="1", content_security_policy="default-src *", alt_svc='h3=":443"',
        clear_site_data='"*"', strict_transport_security="max-age=1", nel="{}", report_to="{}",
        reporting_endpoints='a="//evil.example"', accept_ch="DPR", critical_ch="DPR",
        origin_agent_cluster="?1",
    )  # fmt: skip
    expected = {"content-type", "content-length", "etag", "location", "set-cookie", "age"}
    assert names(headers_for_caller(200, sent)) == expected


@pytest.mark.parametrize(
    ("status", "answer", "passed_on"),
    [
        (200, {"content_length": "3"}, {"content-length"}),
        (200, {"content_length": "3", "transfer_encoding": "chunked"}, set()),
        (204, {"content_length": "3"}, set()),
        (304, {"content_length": "3"}, set()),
    ],
)
def test_a_length_that_is_not_the_length_of_the_body_is_dropped(status, answer, passed_on):
    assert names(headers_for_caller(status, headers(**answer))) == passed_on


@pytest.mark.parametrize("name", ["authorization", "cookie"])
def test_a_request_with_credentials_is_personal(name):
    assert are_personal(headers(accept="*/*", **{name: "x"}))
    assert not are_personal(headers(accept="*/*"))


def test_requests_share_an_answer_if_they_accept_the_same():
    sent = headers(accept="text/html", accept_language="de", user_agent="me")
    assert names(sharing_headers(sent)) == {"accept", "accept-language"}
