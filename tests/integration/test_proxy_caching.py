"""The reuse of the upstream's answers by two workers of the proxy (RFC 9111), over real sockets."""

import asyncio
from email.utils import formatdate

import pytest

from tests.support.api import CALM, PLENTY, running_api
from tests.support.upstream import running_upstream


@pytest.fixture
def start_api(redis_server):
    def start(upstream, **settings):
        settings = {"proxy_rate_limit_seconds": 0.05, "proxy_upstream_url": upstream.url} | settings
        return running_api(redis_server.url, **(PLENTY | CALM | settings))

    return start


def answering(*headers):
    """Run an upstream that numbers its answers and adds `headers` to each."""

    async def answer(upstream, _line, writer):
        lines = "".join(f"{header}\r\n" for header in headers)
        body = str(len(upstream.arrivals))
        writer.write(f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    return running_upstream(answer)


@pytest.mark.parametrize(
    ("headers", "bodies"),
    [
        (["Cache-Control: max-age=60", "Pragma: no-cache"], ["1", "1", "1"]),
        (["Cache-Control: max-age=0"], ["1", "2", "3"]),
        (["Cache-Control: max-age=60", "Cache-Control: s-maxage=0"], ["1", "2", "3"]),
        (["Cache-Control: must-revalidate"], ["1", "2", "3"]),
        (["Pragma: no-cache"], ["1", "2", "3"]),
        ([f"Expires: {formatdate(0, usegmt=True)}"], ["1", "2", "3"]),
        (["Vary: Accept", "Vary: *"], ["1", "2", "3"]),
    ],
)
async def test_both_workers_use_an_answer_again_only_while_it_is_fresh(start_api, headers, bodies):
    async with (
        answering(*headers) as upstream,
        start_api(upstream) as one,
        start_api(upstream) as other,
    ):
        answers = [await api.get("/proxy/a") for api in (one, other, one)]
        assert [answer.text for answer in answers] == bodies
        copies = ["HIT"] * 2 if bodies[1] == "1" else ["MISS"] * 2
        assert [answer.headers["x-cache"] for answer in answers] == ["MISS", *copies]


async def test_the_age_of_the_upstream_is_passed_on_and_counted(start_api):
    async with answering("Age: 10", "Cache-Control: max-age=60") as upstream, start_api(upstream) as api:
        answers = [await api.get("/proxy/a") for _ in range(2)]
        assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT"]
        assert [answer.headers.get_list("age") for answer in answers] == [["10"], ["10"]]


async def test_a_request_can_reject_a_copy(start_api):
    async with answering() as upstream, start_api(upstream) as api:
        await api.get("/proxy/a")
        for headers, body in (({"Cache-Control": "no-cache"}, "2"), ({"Pragma": "no-cache"}, "3")):
            answer = await api.get("/proxy/a", headers=headers)
            assert (answer.headers["x-cache"], answer.text) == ("MISS", body)
            assert not [line for line in upstream.headers[-1] if line.startswith(("cache-control", "pragma"))]
            assert (await api.get("/proxy/a")).text == body


async def test_a_stale_copy_that_must_be_validated_does_not_replace_an_error(start_api):
    """RFC 9111, section 4.2.4."""

    async def fail_later(upstream, line, writer):
        if len(upstream.arrivals) > 2:
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
            return
        required = ", must-revalidate" if "/required" in line else ""
        head = f"HTTP/1.1 200 OK\r\nCache-Control: max-age=1{required}\r\nContent-Length: 2\r\n\r\nhi"
        writer.write(head.encode())

    async with running_upstream(fail_later) as upstream, start_api(upstream) as api:
        paths = ("/proxy/optional", "/proxy/required")
        for path in paths:
            assert (await api.get(path)).status_code == 200
        await asyncio.sleep(1.05)
        optional, required = [await api.get(path) for path in paths]
        assert (optional.status_code, optional.headers["x-cache"]) == (200, "STALE")
        assert (required.status_code, required.json()["code"]) == (503, "EXTERNAL_SERVICE_UNAVAILABLE")
