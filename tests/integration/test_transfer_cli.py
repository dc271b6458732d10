"""`python -m src.cli export` and `import` as processes that are killed, with a real service."""

import gzip
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from src.cli.__main__ import API_KEY_VARIABLE, POINTS_REJECTED
from tests.support.processes import until
from tests.support.server import ROOT, environment, free_port

COMMAND = [sys.executable, "-m", "src.cli"]
PLENTY = {"RATE_LIMIT_REQUESTS": "1000000", "RATE_LIMIT_READ_REQUESTS": "1000000", "LOG_LEVEL": "CRITICAL"}
POINTS = 120_000


@pytest.fixture
def service(start_server):
    return start_server(workers=1, **PLENTY)


@pytest.fixture
async def client(service):
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        await service.until_healthy(client)
        yield client


def begin(*arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, **options
    )


def run(*arguments, variables=None, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, env=environment(**(variables or {})),
        capture_output=True, timeout=60, check=False, **options,
    )  # fmt: skip


def lines_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


async def store_points(client, count=POINTS):
    """Store points of two types with many equal timestamps, not ordered by time."""
    chance = random.Random(5)
    for first in range(0, count, 10_000):
        body = "".join(
            f'{{"timestamp":"2026-01-31T{12 + n % 2}:{chance.randrange(60):02}:{chance.randrange(60):02}Z",'
            f'"value":{n}.5,"type":"{"cpu" if n % 3 else "mem"}","labels":{{"host":"h{n % 7}"}}}}\n'
            for n in range(first, first + 10_000)
        )
        answer = await client.post(
            "/api/metrics/batch", content=body, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.status_code == 201, answer.text


async def summaries(client):
    found = []
    for name in ("cpu", "mem"):
        answer = await client.get(f"/api/metrics/summary?type={name}", headers={"Cache-Control": "no-cache"})
        found.append({key: value for key, value in answer.json().items() if key != "generated_at"})
    return found


@pytest.mark.parametrize("name", ["points.ndjson", "points.ndjson.gz"])
async def test_an_export_that_is_killed_repeatedly_is_complete_in_the_end(service, client, tmp_path, name):
    await store_points(client)
    whole, path = tmp_path / "whole.ndjson", tmp_path / name
    assert run("export", "--url", service.url, "--output", whole).returncode == 0
    part = tmp_path / f"{name}.part"
    step = len(gzip.compress(whole.read_bytes())) if name.endswith("gz") else whole.stat().st_size

    for number in (1, 2):
        least = number * step // 8
        exporting = begin("export", "--url", service.url, "--output", path)
        kill_once(exporting, lambda: size_of(part) >= least)  # noqa: B023
        assert not path.exists()
    ended = run("export", "--url", service.url, "--output", path)

    assert ended.returncode == 0, ended.stderr
    assert re.search(rb"Continuing after \d{3,} points", ended.stderr)
    assert lines_of(path) == whole.read_bytes()
    assert not list(tmp_path.glob("*.part*"))


def kill_once(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Kill a process as soon as a condition is met."""
    until(lambda: process.poll() is not None or condition(), 30)
    process.kill()
    process.communicate()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("name", ["points.ndjson", "points.ndjson.gz"])
async def test_an_import_that_is_killed_repeatedly_stores_each_point_once(
    service, client, redis_server, tmp_path, name
):
    await store_points(client, 60_000)
    before = await summaries(client)
    path, state = tmp_path / name, tmp_path / f"{name}.import.json"
    assert run("export", "--url", service.url, "--output", path).returncode == 0
    with redis_server.connect() as redis:
        redis.flushall()

    for number in (1, 2):
        least = number * 8_000
        importing = begin("import", "--url", service.url, "--batch-points", 1_000, path)
        kill_once(importing, lambda: lines_sent(state, service.url) >= least)  # noqa: B023
    ended = run("import", "--url", service.url, path)

    assert ended.returncode == 0, ended.stderr
    assert re.search(rb"Continuing after line \d+", ended.stderr)
    assert b"Imported 60000 points" in ended.stderr
    assert await summaries(client) == before
    assert run("import", "--url", service.url, path).returncode == 0
    assert await summaries(client) == before


def lines_sent(state: Path, url: str) -> int:
    return json.loads(state.read_bytes())[url]["lines"] if state.exists() else 0


async def test_an_export_goes_through_a_pipe_into_an_import(service, client, start_server):
    """Two services on one Redis share their points, so the second uses another type."""
    await store_points(client, 10_000)

    exported = run("export", "--url", service.url, "--type", "cpu", "--label", "host:h1")
    renamed = exported.stdout.replace(b'"type":"cpu"', b'"type":"copy"')
    imported = run("import", "--url", service.url, "-", input=renamed)

    assert (exported.returncode, imported.returncode) == (0, 0)
    listed = {each["type"]: each["count"] for each in (await client.get("/api/metrics/types")).json()}
    assert listed["copy"] == exported.stdout.count(b"\n") > 500
    assert b"\x1b" not in exported.stdout + exported.stderr + imported.stdout + imported.stderr


async def test_the_export_ends_when_its_reader_closes_the_pipe(service, client):
    await store_points(client, 20_000)
    with begin("export", "--url", service.url, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b'{"timestamp":')
        process.stdout.close()
        output = process.stderr.read()

    assert output == b"python -m src.cli: standard output was closed\n"
    assert process.returncode == 1


async def test_points_that_the_service_rejects_are_named_and_counted(service, client, tmp_path):
    path = tmp_path / "points.ndjson"
    path.write_text('{"timestamp":"2026-01-31T12:00:00Z","value":1,"type":"cpu"}\n{"value":true}\nno json\n')

    ended = run("import", "--url", service.url, path)

    assert ended.returncode == POINTS_REJECTED
    output = ended.stderr.decode()
    assert "line 2: timestamp: Field required" in output
    assert "line 3: body: " in output
    assert "The service rejected 2 points." in output


async def test_the_import_waits_for_the_quota(start_server, tmp_path):
    service = start_server(workers=1, RATE_LIMIT_REQUESTS="2", RATE_LIMIT_WINDOW_SECONDS="1")
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        await service.until_healthy(client)
    path = tmp_path / "points.ndjson"
    path.write_text('{"timestamp":"2026-01-31T12:00:00Z","value":1,"type":"cpu"}\n' * 5)

    ended = run("import", "--url", service.url, "--batch-points", 1, path)

    assert ended.returncode == 0
    assert b"Imported 5 points" in ended.stderr
    assert b"The rate limit is reached; the next request is sent in 1 s" in ended.stderr


@pytest.mark.parametrize("command", [("export",), ("import", "-")])
def test_without_a_service_the_error_is_one_line(command):
    ended = run(*command, "--url", f"http://127.0.0.1:{free_port()}", input=b"{}")

    assert ended.returncode == 1
    assert re.fullmatch(rb"python -m src\.cli: no service at http://127\S+: no connection\n", ended.stderr)


def test_the_key_of_the_environment_is_sent_and_no_proxy_of_it_is_used(tmp_path):
    """The server of this test records the key and rejects every request."""
    with recording_server() as (url, seen):
        variables = {API_KEY_VARIABLE: "from-environment", "HTTP_PROXY": "http://127.0.0.1:9"}
        run("export", "--url", url, variables=variables)
        run("export", "--url", url, "--api-key", "from-flag", variables=variables)

    assert seen == ["from-environment", "from-flag"]


@contextmanager
def recording_server():
    """Run a server that answers 403 and records the received keys."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers["X-API-Key"])
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
