"""Load on a server: by `wrk` where it is on `PATH`; at a pace, or without it, by the bundled driver."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import CHECKOUT, LOAD_CORE

TIMEOUT_SECONDS = 30
"""A request that takes longer is lost. wrk's own is two seconds."""
SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Request:
    """A request, the same every time it is sent."""

    method: str
    path: str
    body: bytes = b""
    content_type: str = ""

    def raw(self) -> str:
        """Return it as HTTP/1.1, one byte a character."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        if self.body:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        return "\r\n".join(lines) + "\r\n\r\n" + self.body.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        requests: Answers.
        errors: Those of 400 and above among them.
        lost: Requests without an answer.
        seconds: How long it took.
        p50_ms: Median latency.
        p99_ms: What one answer in a hundred was slower than.
    """

    requests: int
    errors: int
    lost: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def send(request: Request, port: int) -> tuple[int, dict[str, str]]:
    """Send one request and return the status and the headers of its answer, in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": request.content_type} if request.body else {}
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def driver_name() -> str:
    """Return who drives at full speed."""
    if wrk := shutil.which("wrk"):
        said = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout
        return " ".join(said.split()[:2])
    return "the bundled driver"


def drive(request: Request, port: int, connections: int, seconds: int, rate: float | None = None) -> Load:
    """Send `request` again and again, from the load's core.

    Args:
        request: What to send.
        port: Where on the loopback address.
        connections: How many, each with one request at a time.
        seconds: How long.
        rate: Requests a second; None is as many as there are answers.
    """
    wrk = shutil.which("wrk")
    if rate is None and wrk is not None:
        return _drive_by_wrk(wrk, request, port, connections, seconds)
    task = {"request": request.raw(), "port": port, "connections": connections}
    task |= {"seconds": seconds, "rate": rate}
    return read_figures(_run([sys.executable, "-m", "bench.driver"], json.dumps(task)))


def _drive_by_wrk(wrk: str, request: Request, port: int, connections: int, seconds: int) -> Load:
    with tempfile.NamedTemporaryFile(prefix="bench-body-") as body:
        body.write(request.body)
        body.flush()
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_SECONDS}s"]
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", request.method, request.path]
        if request.body:
            command += [request.content_type, body.name]
        return read_figures(_run(command))


def read_figures(printed: str) -> Load:
    """Return the figures in the last line that a driver printed."""
    return Load(**json.loads(printed.splitlines()[-1]))


def _run(command: Sequence[str], given: str = "") -> str:
    return subprocess.run(
        command,
        input=given,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=CHECKOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    ).stdout
