"""The import: each point is stored once, also after interruptions, and each rejected point is named."""

import gzip
import io
import json

import httpx
import pytest

from src.cli.transfer import importing
from src.cli.transfer.importing import ImportOptions, run_import
from src.cli.transfer.service_client import TransferError
from src.resilience import SystemClock
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.transfer.conftest import point

pytestmark = pytest.mark.usefixtures("use_service")


@pytest.fixture(params=["points.ndjson", "points.ndjson.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


def write(path, points):
    text = "".join(json.dumps(each) + "\n" for each in points).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


async def run(path, terminal=None, stdin=b"", **options):
    return await run_import(
        ImportOptions(file=str(path), **options), terminal or Terminal(), SystemClock(), io.BytesIO(stdin)
    )


def stored(service):
    return [each for batch in service.batches.values() for each in batch]


async def test_a_file_is_stored_in_batches(service, terminal, path):
    points = [point(n) for n in range(25)]
    write(path, points)

    assert await run(path, terminal, batch_points=10) == 0

    assert [len(batch) for batch in service.batches.values()] == [10, 10, 5]
    assert stored(service) == points
    assert "Imported 25 points" in terminal.text


async def test_a_batch_has_at_most_the_bytes_that_the_service_accepts(service, path, monkeypatch):
    monkeypatch.setattr(importing, "MAX_BATCH_BYTES", 200)
    points = [point(n) for n in range(9)]
    write(path, points)

    await run(path)

    assert stored(service) == points
    assert max(len(request.content) for request in service.requests) <= 200


async def test_points_come_from_standard_input(service):
    await run("-", stdin=b'{"value": 1.0}\n\n  \r\n{"value": 2.0}')

    assert stored(service) == [{"value": 1.0}, {"value": 2.0}]


async def test_the_same_points_have_the_same_keys_from_standard_input(service):
    text = b"".join(b'{"value": %d.0}\n' % n for n in range(9))
    for _ in range(2):
        await run("-", stdin=text, batch_points=2)

    assert len(service.requests) == 10
    assert len(service.batches) == 5


async def test_equal_batches_within_a_file_have_different_keys(service, path):
    write(path, [point(0)] * 6)

    await run(path, batch_points=2)

    assert len(service.batches) == 3


async def test_each_rejected_point_is_reported_with_its_line(service, terminal, path):
    text = "".join(json.dumps(point(n, value)) + "\n\n" for n, value in enumerate([1.0, "x", 1.0, None, 1.0]))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

    assert await run(path, terminal, batch_points=2) == 2

    assert terminal.lines_with("line 3: value: is no number")
    assert terminal.lines_with("line 7: value: is no number")
    assert "The service rejected 2 points." in terminal.text


@pytest.mark.parametrize("fails_at", range(1, 6))
async def test_an_import_that_was_interrupted_is_continued(service, path, fails_at):
    points = [point(n) for n in range(9)]
    write(path, points)
    refused = httpx.Response(403, json={"message": "closed"})
    sent = service._store

    def fail_once(request):
        return sent(request) if len(service.requests) != fails_at else refused

    service._store = fail_once
    with pytest.raises(TransferError):
        await run(path, batch_points=2)
    assert await run(path, batch_points=5) == 0  # the size of the first one counts

    assert stored(service) == points
    assert len(service.requests) == 6


async def test_a_batch_whose_answer_was_lost_is_sent_again_with_its_key(service, path):
    write(path, [point(n) for n in range(4)])
    answers = service._store

    def lose_the_answer(request):
        answers(request)
        service._store = answers
        raise httpx.ReadError("cut")

    service._store = lose_the_answer
    with pytest.raises(TransferError):  # since it has never answered
        await run(path, batch_points=2)
    await run(path, batch_points=2)

    assert len(service.requests) == 3
    assert stored(service) == [point(n) for n in range(4)]


@pytest.mark.parametrize("stored_before", [0, 1])
async def test_a_batch_that_is_too_large_can_be_made_smaller(service, path, stored_before):
    points = [point(n) for n in range(8)]
    write(path, points)
    answers = service._store

    def refuse(request):
        if len(service.requests) <= stored_before:
            return answers(request)
        return httpx.Response(413, json={"message": "The body may be at most 1024 bytes"})

    service._store = refuse
    with pytest.raises(TransferError, match="at most 1024 bytes: lower --batch-points"):
        await run(path, batch_points=4)
    service._store = answers
    await run(path, batch_points=2)

    assert [len(batch) for batch in service.batches.values()][stored_before:] == [2] * (4 - 2 * stored_before)
    assert stored(service) == points


async def test_a_file_that_was_imported_is_not_sent_again(service, terminal, path):
    write(path, [point(0), point(1, "x")])
    await run(path)
    sent = len(service.requests)

    assert await run(path, terminal) == 1
    assert len(service.requests) == sent
    assert "Continuing after line 2." in terminal.text


async def test_a_file_to_which_points_were_added_is_continued(service, tmp_path):
    path = tmp_path / "points.ndjson"
    write(path, [point(0)])
    await run(path)
    write(path, [point(0), point(1)])
    await run(path)

    assert stored(service) == [point(0), point(1)]


async def test_each_service_has_its_own_state(service, path):
    write(path, [point(0)])
    for url in ("http://a", "http://b/", "http://a"):
        await run(path, url=url)

    assert [request.url.host for request in service.requests] == ["a", "b"]


async def test_a_file_that_has_changed_is_not_continued(service, path):
    write(path, [point(0)])
    await run(path)
    write(path, [point(1)])

    with pytest.raises(TransferError, match="has changed since its import"):
        await run(path)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
async def test_a_file_without_points_is_imported_without_a_request(service, path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    assert await run(path) == 0
    assert service.requests == []


# Without ids pytest would name a test after the content, which differs between the workers of pytest-xdist.
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{}", "not gzip"), (gzip.compress(b'{"value": 1.0}\n' * 99)[:-4], "cut short")],
    ids=["not gzip", "cut short"],
)
async def test_a_broken_gzip_file_is_reported(tmp_path, content, reason):
    path = tmp_path / "points.gz"
    path.write_bytes(content)

    with pytest.raises(TransferError, match=reason):
        await run(path)


@pytest.mark.parametrize("name", ["missing.ndjson", "."])
async def test_a_file_that_cannot_be_read_is_reported(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TransferError, match=rf"^{name} can't be read"):
        await run(name)


@pytest.mark.parametrize("state", [b"{", b"[]", b'{"http://127.0.0.1:8000": {"line": 1}}'])
async def test_an_invalid_state_file_is_reported(tmp_path, state):
    path = tmp_path / "points.ndjson"
    write(path, [point(0)])
    path.with_name("points.ndjson.import.json").write_bytes(state)

    with pytest.raises(TransferError, match=r"points\.ndjson\.import\.json has something else"):
        await run(path)


async def test_a_terminal_has_a_progress_bar(service, path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    write(path, [point(n) for n in range(10)])
    terminal = Terminal(force_terminal=True)

    await run(path, terminal)

    size = path.stat().st_size
    assert f"{size}/{size} bytes" in terminal.text
