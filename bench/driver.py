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
"""How often the pace is kept: what became due since then is sent at once."""
GRACE_SECONDS = 30.0
"""How long the last answers may take."""


@dataclass(slots=True)
class Run:
    """What is sent, and what came of it.

    Attributes:
        request: The bytes of one request.
        is_paced: Whether requests are due at moments, or each after the last.
        ends_at: No request is begun later, by the monotonic clock.
        latencies: Seconds, one for each answer.
        errors: Answers of 400 and above.
        due: When each request became due that no connection has taken yet.
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
    """One connection, with at most one request under way."""

    def __init__(self, run: Run, clock: SystemClock) -> None:
        self._run = run
        self._clock = clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = cast("asyncio.WriteTransport", transport)  # as uvloop's is, by what it can do
        self._run.idle.append(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Note the answer, and go on."""
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
        """Hang up."""
        assert self._transport is not None
        self._transport.close()


async def drive(
    request: bytes, port: int, connections: int, seconds: float, rate: float | None
) -> dict[str, float]:
    """Send `request` for `seconds` and return the figures.

    Args:
        request: Its bytes.
        port: Where on the loopback address.
        connections: Opened beforehand, and kept.
        seconds: How long requests are begun.
        rate: Requests a second; None sends the next as soon as there was an answer.

    Returns:
        Answers (`requests`), those of 400 and above (`errors`), requests without an answer (`lost`), the
        `seconds` it took, and percentiles of the latency in ms.
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
    await clock.sleep(0)  # in which they do
    if not run.latencies:
        raise SystemExit("nobody answered")
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
