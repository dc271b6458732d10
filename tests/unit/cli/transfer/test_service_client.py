"""The client of a service: its waits, attempts and errors."""

import httpx
import pytest

from src.cli.transfer.service_client import MAX_ATTEMPTS, TransferError
from tests.unit.cli.transfer.conftest import point


def problem(status, message="no", **headers):
    return httpx.Response(status, json={"message": message, "code": "X"}, headers=headers)


async def test_over_the_quota_the_client_waits_for_retry_after(service, client_of, clock):
    service.points = [point(0)]
    service.failures = [problem(429, **{"Retry-After": "42"}), problem(429, **{"Retry-After": "7"})]
    notices = []

    assert await clock.drive(client_of(notices).types()) == {"cpu": 1}

    assert clock.sleeps == [42, 7]
    assert notices[0] == "The rate limit is reached; the next request is sent in 42 s"


async def test_the_client_waits_again_if_the_quota_is_spent_again(service, client_of, clock):
    service.failures = [problem(429, **{"Retry-After": "60"})] * (3 * MAX_ATTEMPTS)

    assert await clock.drive(client_of().types()) == {}


async def test_a_failed_request_is_repeated_a_few_times(service, client_of, clock):
    service.failures = [
        problem(503, **{"Retry-After": "3"}),
        httpx.ReadError("cut"),
        httpx.ConnectError("no"),
    ]

    assert await clock.drive(client_of().types()) == {}
    assert clock.sleeps == [3, 1, 1]


async def test_after_the_last_attempt_the_error_is_raised(service, client_of, clock):
    service.failures = [problem(503, "Redis is away")] * MAX_ATTEMPTS

    with pytest.raises(TransferError, match=r"the service at http://service/? fails: Redis is away; run"):
        await clock.drive(client_of().types())
    assert len(service.requests) == MAX_ATTEMPTS


async def test_an_unreachable_service_is_an_error_at_once(service, client_of, clock):
    service.failures = [httpx.ConnectError("refused")]

    with pytest.raises(TransferError, match=r"no service at http://service/?: no connection"):
        await clock.drive(client_of().types())
    assert clock.sleeps == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_rejection_has_the_message_of_the_service(service, client_of, clock, status):
    service.failures = [problem(status, "the batch is too large")]

    with pytest.raises(TransferError, match=rf"the service refuses \({status}\): the batch is too large"):
        await clock.drive(client_of().store(b"{}\n", "key"))


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"a": 1}', b'[{"type": "cpu"}]'])
async def test_a_response_of_another_server_is_an_error(service, client_of, clock, body):
    service.failures = [httpx.Response(200, content=body)]

    with pytest.raises(TransferError, match="is not this service"):
        await clock.drive(client_of().types())


async def test_a_page_of_another_server_is_not_an_export(service, client_of, clock):
    service.failures = [httpx.Response(200, content=b"<html>\n", headers={"Content-Type": "text/html"})]

    with pytest.raises(TransferError, match="is not this service"):
        await clock.drive(anext(client_of().export([("type", "cpu")])))


async def test_lines_are_complete_for_any_division_of_the_bytes(service, client_of):
    async def stream():
        for piece in (b"ab", b"c\nd", b"ef\ngh\n", b"\n"):
            yield piece

    service.failures = [
        httpx.Response(200, headers={"Content-Type": "application/x-ndjson"}, content=stream())
    ]

    lines = [some async for some in client_of().export([("type", "cpu")])]

    assert b"".join(lines) == b"abc\ndef\ngh\n\n"
    assert all(some.endswith(b"\n") for some in lines)


async def test_an_export_that_is_cut_off_is_an_error_after_its_complete_lines(service, client_of):
    service.points = [point(0), point(1)]
    service.cut_after = 90

    lines = client_of().export([("type", "cpu")])
    assert (await anext(lines)).count(b"\n") == 1
    with pytest.raises(TransferError, match="cut off"):
        await anext(lines)


async def test_an_export_that_ends_within_a_line_is_an_error(service, client_of):
    response = httpx.Response(200, headers={"Content-Type": "application/x-ndjson"}, content=b'{"a":1}\n{"a"')
    service.failures = [response]

    with pytest.raises(TransferError, match="within a line"):
        async for _ in client_of().export([("type", "cpu")]):
            pass


async def test_points_that_are_rejected_are_named(service, client_of):
    lines = b'{"value": 1.0}\n{"value": "x"}\n'

    result = await client_of().store(lines, "key")

    assert (result.accepted, result.rejected) == (1, 1)
    assert [(error.index, error.field, error.message) for error in result.errors] == [
        (1, "value", "is no number")
    ]
