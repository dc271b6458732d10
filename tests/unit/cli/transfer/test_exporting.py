"""The export: a complete file, a continued file after an interruption, or an error."""

import errno
import gzip
import io
import json

import httpx
import pytest

from src.cli.transfer import part_file
from src.cli.transfer.exporting import ExportOptions, run_export
from src.cli.transfer.service_client import TransferError
from src.resilience import SystemClock
from tests.unit.cli.conftest import Terminal
from tests.unit.cli.transfer.conftest import point

pytestmark = pytest.mark.usefixtures("use_service")


@pytest.fixture(params=["points.ndjson", "points.ndjson.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(part_file, "BLOCK_BYTES", 1)


async def run(terminal=None, **options):
    stdout = io.BytesIO()
    await run_export(ExportOptions(**options), terminal or Terminal(), SystemClock(), stdout)
    return stdout.getvalue()


def read(path):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.splitlines()]


async def test_all_types_are_exported_in_order_of_names(service, terminal, path):
    service.points = [point(second, kind=kind) for kind in ("mem", "cpu", "disk") for second in range(3)]

    await run(terminal, output=str(path))

    assert read(path) == sorted(service.points, key=lambda each: each["type"])
    assert "Exported 9 points" in terminal.text
    assert list(path.parent.iterdir()) == [path]


async def test_one_type_goes_to_standard_output(service):
    service.points = [point(0, kind="mem"), point(1)]

    assert [json.loads(line) for line in (await run(type="cpu")).splitlines()] == [point(1)]


async def test_the_query_and_the_key_are_sent(service):
    await run(
        type="cpu", from_="2026-01-31T12:00:00Z", to="2026-02-01T00:00:00+02:00",
        label=("host:a b", "host:ü&"), api_key="secret",
    )  # fmt: skip

    request = service.requests[-1]
    assert request.url.params.multi_items() == [
        ("type", "cpu"), ("from", "2026-01-31T12:00:00Z"), ("to", "2026-02-01T00:00:00+02:00"),
        ("label", "host:a b"), ("label", "host:ü&"),
    ]  # fmt: skip
    assert request.headers["X-API-Key"] == "secret"


async def test_an_export_without_points_is_an_empty_file(path):
    await run(output=str(path), type="unknown")

    assert read(path) == []


@pytest.mark.parametrize("same", [1, 3, 8])
async def test_an_export_that_was_cut_off_anywhere_is_continued(service, path, same):
    """Each timestamp has `same` points, so that a continued export must not repeat or omit one of them."""
    service.points = [point(n // same, n / 7, kind) for kind in ("cpu", "mem") for n in range(16)]
    size = len(json.dumps(point(0)).encode()) + 1
    for cut_after in (0, size - 1, size, 3 * size + 5, 9 * size, 14 * size):
        service.cut_after = cut_after
        with pytest.raises(TransferError):
            await run(output=str(path))
        assert not path.exists()
    await run(output=str(path))

    assert read(path) == service.points


async def test_points_stored_during_an_export_are_neither_repeated_nor_lost(service, path):
    service.points = [point(n) for n in range(10)]
    service.cut_after = 500
    with pytest.raises(TransferError):
        await run(output=str(path))
    service.points += [point(9, 2.0), point(10), point(0, kind="aaa"), point(0, kind="zzz")]

    await run(output=str(path))

    # `aaa` is a type that did not exist when the export began.
    assert read(path) == [each for each in service.points if each["type"] != "aaa"]


async def test_a_partial_file_that_ends_anywhere_is_continued(service, path, tmp_path):
    """A process that was killed may have written any number of bytes."""
    service.points = [point(n // 2, n / 7) for n in range(6)]
    await run(output=str(path))
    whole = path.read_bytes()
    path.unlink()
    service.cut_after = 100
    with pytest.raises(TransferError):
        await run(output=str(path))
    part, about = tmp_path / f"{path.name}.part", (tmp_path / f"{path.name}.part.json").read_bytes()

    for end in range(0, len(whole), 7):
        part.write_bytes(whole[:end])
        part.with_name(f"{part.name}.json").write_bytes(about)
        await run(output=str(path))
        assert read(path) == service.points
        path.unlink()


async def test_a_partial_file_whose_points_were_deleted_is_not_continued(service, path):
    service.points = [point(n) for n in range(10)]
    service.cut_after = 500
    with pytest.raises(TransferError):
        await run(output=str(path))
    service.points = service.points[:2]

    with pytest.raises(TransferError, match="have changed since the export began"):
        await run(output=str(path))
    assert not path.exists()


async def test_a_partial_file_of_another_export_is_not_changed(service, path):
    service.points = [point(n) for n in range(10)]
    service.cut_after = 500
    with pytest.raises(TransferError):
        await run(output=str(path))
    part = path.with_name(f"{path.name}.part")
    before = part.read_bytes()

    with pytest.raises(TransferError, match="is of another export"):
        await run(output=str(path), type="cpu")
    assert part.read_bytes() == before


@pytest.mark.parametrize("content", [b"mine\n", b"{}\n", b"[]\n"])
async def test_a_partial_file_without_points_is_not_changed(service, path, content):
    service.points = [point(0), point(1)]
    service.cut_after = 100
    with pytest.raises(TransferError):
        await run(output=str(path))
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    before = part.read_bytes()

    with pytest.raises(TransferError, match="something else than points"):
        await run(output=str(path))
    assert part.read_bytes() == before


async def test_an_existing_file_is_not_changed(path):
    path.write_bytes(b"mine")

    with pytest.raises(TransferError, match="exists already"):
        await run(output=str(path))
    assert path.read_bytes() == b"mine"


async def test_an_export_that_could_not_begin_leaves_no_file(service, path):
    service.failures = [httpx.ConnectError("refused")]

    with pytest.raises(TransferError, match="no connection"):
        await run(output=str(path))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("output", ["no/such/folder/points", "."])
async def test_a_file_that_cannot_be_written_is_reported(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TransferError, match=rf"^{output}"):
        await run(output=output)


async def test_a_full_disk_is_reported(service, path, monkeypatch):
    service.points = [point(0)]
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(part_file.PartFile, "_write_block", lambda _: (_ for _ in ()).throw(full))

    with pytest.raises(TransferError, match="can't be written: No space left on device"):
        await run(output=str(path))


async def test_an_export_waits_when_the_quota_is_spent(service, path, terminal, clock):
    service.points = [point(0), point(0, kind="mem")]
    service.failures = [httpx.Response(429, json={"message": "over"}, headers={"Retry-After": "30"})] * 2

    await clock.drive(run_export(ExportOptions(output=str(path)), terminal, clock, io.BytesIO()))

    assert clock.sleeps == [30, 30]
    assert read(path) == service.points


async def test_an_older_service_without_an_export_is_read_by_its_list(service, path, terminal):
    service.has_export = False
    service.points = [point(n // 2, n / 7, kind) for kind in ("cpu", "mem") for n in range(10)]

    await run(terminal, output=str(path))

    assert read(path) == service.points
    assert len(terminal.lines_with("has no export")) == 1


async def test_the_points_of_an_older_service_are_filtered_by_time(service, path):
    service.has_export = False
    service.points = [point(n) for n in range(10)]

    await run(output=str(path), type="cpu", from_=point(3)["timestamp"], to=point(7)["timestamp"])

    assert read(path) == service.points[3:7]


async def test_an_export_of_an_older_service_is_continued(service, path):
    service.has_export = False
    service.points = [point(n // 4, n / 7, kind) for kind in ("cpu", "mem") for n in range(10)]
    answers = service._list

    def fail_on_mem(request):
        return httpx.Response(403, json={}) if request.url.params["type"] == "mem" else answers(request)

    service._list = fail_on_mem
    with pytest.raises(TransferError):
        await run(output=str(path))
    service._list = answers
    await run(output=str(path))

    assert read(path) == service.points


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"<html>"])
async def test_a_list_from_another_server_is_rejected(service, path, body):
    service.has_export = False
    service.points = [point(0)]
    service._list = lambda _: httpx.Response(200, content=body)

    with pytest.raises(TransferError, match="is not this service"):
        await run(output=str(path))


async def test_a_terminal_has_a_progress_bar(service, path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    service.points = [point(n) for n in range(10)]
    terminal = Terminal(force_terminal=True)

    await run(terminal, output=str(path))

    assert "10/10" in terminal.text
