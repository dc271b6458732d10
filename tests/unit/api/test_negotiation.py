"""The preferences in a client's Accept headers."""

import pytest

from src.api.responses.negotiation import accepts_gzip, prefers_html

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept_encoding", "is_accepted"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br,gzip", True),  # the lines of a field, joined
        ("gzip;q=0", False),  # it was sent anyway
        ("gzip; q=0.000", False),
        ("gzip ; Q = 0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("*", True),
        ("br, *;q=0.1", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0.5, identity", False),
        ("identity;q=0.5, gzip", True),
        ("gzip;q=high", False),
        ("gzip;q=1.5", False),
        ("notgzip", False),  # a name that only contains "gzip" must not count
        (",,", False),
    ],
)
def test_gzip_is_sent_to_clients_that_prefer_it(accept_encoding, is_accepted):
    assert accepts_gzip(accept_encoding) is is_accepted


@pytest.mark.parametrize(
    ("accept", "is_preferred"),
    [
        (None, False),
        ("*/*", False),  # curl, httpx, most programs
        (FIREFOX, True),
        (CHROME, True),
        ("text/html", True),
        ("text/*", True),
        ("application/json", False),
        ("application/json, text/html", False),
        ("application/json;q=0.9, text/html", True),
        ("text/html;q=0, */*", False),
        ("text/html;level=1;q=0.4, application/json;q=0.3", True),
        ("application/json, text/plain, */*", False),  # the scripts of the page
    ],
)
def test_html_is_for_browsers(accept, is_preferred):
    assert prefers_html(accept) is is_preferred
