"""The memory of a real worker that receives batches made to use much of it."""

import asyncio
import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import orjson
import pytest

pytestmark = pytest.mark.slow

MAX_BODY = 5 * 1024 * 1024
MAX_GROWTH_MB = 60
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
SETTINGS = {"RATE_LIMIT_REQUESTS": "100000", "RATE_LIMIT_READ_REQUESTS": "100000"}
AT_ONCE = 8
GZIP_MAGIC = b"\x1f\x8b"


def point(number: int = 0, **members: object) -> bytes:
    return orjson.dumps({"timestamp": "2026-01-31T12:00:00Z", "value": number, "type": "cpu", **members})


def filled(lines: Iterable[bytes]) -> bytes:
    """Return as many of the lines as fit into a body."""
    size, kept = 0, []
    for line in lines:
        size += len(line) + 1
        if size > MAX_BODY:
            break
        kept.append(line)
    return b"\n".join(kept)


def array_of(text: bytes) -> bytes:
    return b"[" + b",".join([text] * ((MAX_BODY - 2) // (len(text) + 1))) + b"]"


def zipped(body: bytes) -> bytes:
    return gzip.compress(body, 1)


def deep(levels: int) -> bytes:
    return point()[:-1] + b', "more": ' + b"[" * levels + b"]" * levels + b"}"


LONG_LABELS = {f"{'n' * 60}{n:03}": "\U0001f600" * 128 for n in range(15)}

BATCHES: dict[str, tuple[Callable[[], bytes], dict[str, str]]] = {
    "thousands of types": (lambda: filled(point(n, type=f"type-{n % 9_000}") for n in range(10_000)), NDJSON),
    "large points": (lambda: filled(point(n, more="x" * 60_000) for n in range(90)), NDJSON),
    "long labels": (
        lambda: filled(point(n, labels={"n": str(n), **LONG_LABELS}) for n in range(300)),
        NDJSON,
    ),
    "deep array": (lambda: b"[" * MAX_BODY, JSON),
    "deep lines": (lambda: filled(deep(30_000) for _ in range(90)), NDJSON),
    "deep points": (lambda: array_of(deep(30_000)), JSON),
    "numbers instead of points": (lambda: array_of(b"1"), JSON),
    "objects without members": (lambda: array_of(b"{}"), JSON),
    "short lines": (lambda: b"1\n" * (MAX_BODY // 2), NDJSON),
    "blank lines": (lambda: b"\n" * MAX_BODY, NDJSON),
    "wrong points": (lambda: b"[" + b",".join([b'{"value":"x"}'] * 10_000) + b"]", JSON),
    "one long string": (lambda: b'["' + b"\\u00e4" * (MAX_BODY // 6 - 2) + b'"]', JSON),
}
BOMBS: dict[str, tuple[Callable[[], bytes], dict[str, str]]] = {
    "a gigabyte": (lambda: zipped(b"\n" * 200 * MAX_BODY), NDJSON),
    "a gigabyte twice compressed": (lambda: zipped(zipped(b"\n" * 200 * MAX_BODY)), NDJSON),
}
FORMS = {"plain": lambda body: body, "compressed": zipped}


def peak_rss_mb(process_id: int) -> float:
    """Return the most memory that a process and its descendants have ever used, each by itself."""
    status = Path(f"/proc/{process_id}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return max([peak, *(peak_rss_mb(int(child)) for child in children)])


@pytest.fixture
async def worker(start_server):
    """A server of one worker, and a client of it."""
    server = start_server(workers=1, command=("src",), **SETTINGS)
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        await server.until_healthy(client)
        yield server, client


async def test_the_memory_of_a_worker_stays_small_under_hostile_batches(worker):
    """Eight at once took a worker 146 MB."""
    server, client = worker
    batches = {
        f"{name}, {form}": (make, headers, FORMS[form])
        for form in FORMS
        for name, (make, headers) in BATCHES.items()
    }
    batches |= {name: (make, headers, FORMS["plain"]) for name, (make, headers) in BOMBS.items()}
    before, peaks = peak_rss_mb(server.process.pid), {}
    for name, (make, headers, change) in batches.items():
        body = change(make())
        assert len(body) <= MAX_BODY, name
        encoding = {"Content-Encoding": "gzip"} if body.startswith(GZIP_MAGIC) else {}
        sent = (
            client.post("/api/metrics/batch", content=body, headers=headers | encoding)
            for _ in range(AT_ONCE)
        )
        statuses = {answer.status_code for answer in await asyncio.gather(*sent)}
        assert statuses <= {201, 207, 400, 413, 422, 503}, name
        peaks[name] = round(peak_rss_mb(server.process.pid) - before)
    assert max(peaks.values()) <= MAX_GROWTH_MB, peaks
    assert (await client.get("/health")).status_code == 200
