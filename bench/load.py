"""Generates the load on a server with `wrk`, or with the bundled driver if `wrk` is missing or at a pace."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from bench.processes import CHECKOUT, LOAD_CORE

TIMEOUT_SECONDS = 30
"""A request that takes longer is lost. The default of wrk is two seconds."""
SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Request:
    """A request with fixed content.

    Attributes:
        method: The HTTP method.
        path: The path and query.
        body: The body; empty if there is none.
        content_type: The media type of the body.
        more_headers: Headers in addition to `Host`, `Content-Type` and `Content-Length`.
    """

    method: str
    path: str
    body: bytes = b""
    content_type: str = ""
    more_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The headers except `Host` and `Content-Length`."""
        content_type = {"Content-Type": self.content_type} if self.content_type else {}
        return {**content_type, **self.more_headers}

    def raw(self) -> str:
        """Return the request in HTTP/1.1, with one character for each byte."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines) + "\r\n\r\n" + self.body.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Load:
    """The results of a load.

    Attributes:
        requests: The number of answers.
        errors: The number of answers with a status of 400 and above.
        lost: The number of requests without an answer.
        seconds: The duration of the load.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
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


class Response(NamedTuple):
    """The response to a request.

    Attributes:
        status: The HTTP status.
        headers: The headers, with names in lower case.
        body: The body, not decoded.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection to a server that stays open until the block ends.

    Args:
        port: The port of the loopback address.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, request: Request) -> Response:
        """Send one request and return its response with any status."""
        self._connection.request(request.method, request.path, request.body or None, request.headers)
        answer = self._connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, headers, answer.read())


def send(request: Request, port: int) -> Response:
    """Send one request over a new connection and return its response."""
    with Client(port) as client:
        return client.send(request)


def driver_name() -> str:
    """Return the name of the driver at full speed."""
    if wrk := shutil.which("wrk"):
        output = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False).stdout
        return " ".join(output.split()[:2])
    return "the bundled driver"


def drive(request: Request, port: int, connections: int, seconds: int, rate: float | None = None) -> Load:
    """Send `request` repeatedly, on the core of the load.

    Args:
        request: The request.
        port: The port of the loopback address.
        connections: The number of connections, each with one request at a time.
        seconds: The duration.
        rate: Requests per second; None sends each request after the previous answer.
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
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--"]
        command += [request.method, request.path, body.name]
        for header in request.headers.items():
            command += header
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
