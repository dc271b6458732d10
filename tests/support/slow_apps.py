"""Slow applications for the server of this project: `python -m uvicorn tests.support.slow_apps:NAME`."""

import asyncio
import sys
import time

from src.server.options import ServerOptions
from src.server.server import install
from src.telemetry.logs import configure_logging

install(
    ServerOptions(
        max_connections=100,
        max_head_bytes=65536,
        head_timeout_seconds=10,
        keep_alive_seconds=5,
        shutdown_delay_seconds=0,
        shutdown_timeout_seconds=1,
    )
)
configure_logging("INFO", "json")


def write_event(event):
    sys.stdout.write(f'{{"event": "{event}"}}\n')
    sys.stdout.flush()


async def start_without_end(scope, receive, send):
    """An application whose start never ends. A cancelled start releases its resources."""
    await receive()
    write_event("starting")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0.1)
        write_event("given back")


async def start_in_a_thread(scope, receive, send):
    """An application whose start waits for a thread that cannot be stopped, like a slow name resolution."""
    await receive()
    write_event("starting")
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)


async def end_without_end(scope, receive, send):
    """An application that starts, and whose shutdown never ends."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    write_event("ending")
    await asyncio.sleep(3600)
