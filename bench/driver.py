"""The bundled driver: sends requests over persistent connections, at full speed or at a given pace.

`bench.load` runs it as a process, which reads and prints a JSON object. At a given pace, each request has a
due time that does not depend on earlier requests. If no connection is free, the request waits, and its
latency counts from its due time, so that the latencies include the delay after a slow answer. The driver runs
on uvloop and shares its core with Redis. Every latency includes the time of the driver itself.
"""

import asyncio
import json
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

from bench.figures import percentile
from src.resilience.clock import SystemClock

PACE_SECONDS = 0.001
"""The time between two checks for due requests."""
GRACE_SECONDS = 30.0
"""The longest time to wait for the last answers."""


@dataclass(slots=True)
class Run:
    """The request and the results of a run.

    Attributes:
        request: The bytes of one request.
        is_paced: Whether requests have due times. Otherwise each is sent after the previous answer.
        ends_at: The time after which no request is sent, by the monotonic clock.
        latencies: The seconds until each answer.
        errors: The number of answers with a status of 400 and above.
        due: The due times of the requests that wait for a connection.
        idle: Connections without a request.
    """

    request: bytes
    is_paced: bool
    ends_at: float
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    due: deque[float] = field(default_factory=deque)
    idle: "deque[Connection]" = field(default_factory=deque)


class Connection(asyncio.Protocol):
    """One connection, with at most one request at a time."""

    def __init__(self, run: Run, clock: SystemClock) -> None:
        self._run = run
        self._clock = clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Add this connection to the idle ones."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's transport can write
        self._run.idle.append(self)

    def data_received(self, data: bytes) -> None:
        """Parse the data."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Record the answer, and send the next request if one is due."""
        now, run = self._clock.monotonic(), self._run
        run.latencies.append(now - self._since)
        run.errors += self._parser.get_status_code() >= 400
        if run.due:
            self.send(run.due.popleft())
        elif run.is_paced or now >= run.ends_at:
            run.idle.append(self)
        else:
            self.send(now)

    def send(self, since: float) -> None:
        """Send the request, whose latency counts from `since`."""
        assert self._transport is not None, "only an open connection is idle"
        self._since = since
        self._transport.write(self._run.request)

    def close(self) -> None:
        """Close the connection."""
        assert self._transport is not None
        self._transport.close()


async def drive(
    request: bytes, port: int, connections: int, seconds: float, rate: float | None
) -> dict[str, float]:
    """Send `request` for `seconds` and return the figures.

    Args:
        request: The bytes of the request.
        port: The port of the loopback address.
        connections: The number of connections, which are opened before the first request.
        seconds: The duration of the run.
        rate: Requests per second; None sends each request after the previous answer.

    Returns:
        The number of answers (`requests`), of answers with 400 and above (`errors`) and of requests without
        an answer (`lost`), the duration (`seconds`), and percentiles of the latency in ms.
    """
    clock, loop = SystemClock(), asyncio.get_running_loop()
    run = Run(request, rate is not None, ends_at=clock.monotonic() + seconds)
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(run, clock), "127.0.0.1", port)
    opened = list(run.idle)
    began = clock.monotonic()
    run.ends_at = began + seconds
    sent = 0
    if rate is None:
        while run.idle:
            run.idle.popleft().send(clock.monotonic())
        await clock.sleep(seconds)
    else:
        while (now := clock.monotonic()) < run.ends_at:
            for _ in range(int((now - began) * rate) - sent):
                sent += 1
                if run.idle:
                    run.idle.popleft().send(now)
                else:
                    run.due.append(now)
            await clock.sleep(PACE_SECONDS)
    took = clock.monotonic() - began
    while len(run.idle) < connections and clock.monotonic() < run.ends_at + GRACE_SECONDS:
        await clock.sleep(0.01)
    unanswered = connections - len(run.idle) + len(run.due)
    for connection in opened:
        connection.close()
    await clock.sleep(0)  # lets the connections close
    if not run.latencies:
        raise SystemExit("the server answered no request")
    return {
        "requests": len(run.latencies),
        "errors": run.errors,
        "lost": unanswered,
        "seconds": took,
        "p50_ms": 1000 * percentile(run.latencies, 50),
        "p99_ms": 1000 * percentile(run.latencies, 99),
    }


if __name__ == "__main__":
    task = json.load(sys.stdin)
    task["request"] = task["request"].encode("latin-1")
    print(json.dumps(uvloop.run(drive(**task))))
