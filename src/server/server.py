"""uvicorn's server with a start that a signal can end, and a stop that answers all running requests.

This module changes the behaviour of uvicorn in these points:

- uvicorn handles a signal during the start only after the start. This module ends the start.
- SIGHUP and SIGQUIT end uvicorn's process at once. With this module, a process that is not a worker stops as
  after SIGTERM.
- uvicorn's workers continue after the end of their parent. With this module, they stop.
- At a stop, uvicorn closes idle connections at once, and connections that it has not accepted yet. Requests
  on their way are lost. This module accepts the connections, and each may send one more request.
- uvicorn answers a request that takes longer than the stop with a 500 in plain text. This module answers 503.
- uvicorn does not limit the time after that. With this module, the process ends within
  `ServerOptions.longest_stop_seconds`.
"""

import asyncio
import faulthandler
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import HANDLED_SIGNALS

from src.resilience.clock import Clock, SystemClock
from src.server.connections import Connections
from src.server.descriptors import limit_connections
from src.server.options import UNWIND_SECONDS, ServerOptions
from src.server.protocol import HttpConnection
from src.server.refusal import CLOSE_HEADER

IDLE_SECONDS = 1.0
"""The time for which an idle connection may still send a request after the server stops accepting."""

POLL_SECONDS = 0.05

_START_STOP_SECONDS = 5.0
"""The longest time between a signal during the start and the end of the process."""

_startup = uvicorn.Server.startup
"""uvicorn's own method, which `install` replaces."""

_log = logging.getLogger(__name__)


def install(options: ServerOptions) -> None:
    """Turn each uvicorn server of this process into a `Server` when it starts.

    The function can be called as late as during uvicorn's import of the application, since the options are
    not read before `startup`.
    """

    async def startup(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        self.__class__ = Server
        assert isinstance(self, Server)
        self.prepare(options, SystemClock())
        await self.startup(sockets)

    uvicorn.Server.startup = startup  # type: ignore[method-assign]


class StartStoppedError(Exception):
    """A signal has stopped the start."""


class Lifespan(LifespanOn):
    """The lifespan of the application, with a start that can be stopped."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()
        self._running: asyncio.Task[Any] | None = None

    def stop_start(self) -> None:
        """Make `startup` cancel the start and raise an error. After the start, this method has no effect."""
        self._stop.set()

    async def startup(self) -> None:
        """Start the application.

        Raises:
            StartStoppedError: `stop_start` was called before the application had started.
        """
        start_task = asyncio.create_task(super().startup())
        stop_task = asyncio.create_task(self._stop.wait())
        await asyncio.wait((start_task, stop_task), return_when=asyncio.FIRST_COMPLETED)
        stop_task.cancel()
        if start_task.done():
            return start_task.result()
        start_task.cancel()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        raise StartStoppedError

    async def main(self) -> None:
        """Run the application's lifespan."""
        self._running = asyncio.current_task()
        await super().main()

    async def send(self, message: Any) -> None:  # noqa: ANN401 -- uvicorn's type is private
        """Receive a message of the application, without the traceback of a stopped or refused start."""
        if message["type"] == "lifespan.startup.failed":
            refusal = sys.exception()
            if self._stop.is_set():
                message = {"type": message["type"]}
            elif isinstance(refusal, SystemExit):
                message = {"type": message["type"], "message": str(refusal)}
        await super().send(message)


class Server(uvicorn.Server):
    """uvicorn's server from its start on. `prepare` sets its attributes."""

    server_state: Connections

    def prepare(self, options: ServerOptions, clock: Clock) -> None:
        """Set the attributes of a uvicorn server that is about to start.

        Args:
            options: The options.
            clock: The clock of the server and its connections.
        """
        options = replace(options, max_connections=limit_connections(options.max_connections))
        self._options = options
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.server_state = Connections(options, clock)
        config = self.config
        config.http_protocol_class = HttpConnection
        config.ws_protocol_class = None  # there are no websockets
        if isinstance(config.loaded_app, ProxyHeadersMiddleware):
            config.loaded_app = config.loaded_app.app  # src.api.client_address reads X-Forwarded-For instead
        if isinstance(self.lifespan, LifespanOn):
            self.lifespan = Lifespan(config)

    # ---------------------------------------------------------------- the start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, unless a signal arrives first."""
        self._handle_signals()
        self._stop_with_parent()
        if self.should_exit:  # a signal arrived while the application was imported
            return
        try:
            await _startup(self, sockets)
        except StartStoppedError:
            _log.info("start_stopped")

    def _handle_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)
        if os.name != "posix":
            return
        signal.signal(signal.SIGQUIT, _as_sigterm)
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent restarts its workers one by one
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(signal.SIGHUP, _as_sigterm)

    def _stop_with_parent(self) -> None:
        parent = multiprocessing.parent_process()
        if parent is None:
            return

        def wait() -> None:
            parent.join()
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(signal.raise_signal, signal.SIGTERM)

        threading.Thread(target=wait, name="parent", daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. This method handles `HANDLED_SIGNALS`, in the main thread."""
        is_first = not self.should_exit
        super().handle_exit(sig, frame)
        if not is_first:
            return
        seconds = self._options.longest_stop_seconds if self.started else _START_STOP_SECONDS
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
        if isinstance(self.lifespan, Lifespan):
            self._loop.call_soon_threadsafe(self.lifespan.stop_start)

    # ---------------------------------------------------------------- while it runs

    async def on_tick(self, counter: int) -> bool:
        """Do the periodic work, ten times a second, and return whether to stop."""
        if counter % 10 == 0:
            self.server_state.sweep()
        return await super().on_tick(counter)

    # ---------------------------------------------------------------- the stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: answer running requests, close idle connections, and close the application."""
        _log.info("stopping", extra={"connections": len(self.server_state.connections)})
        self.server_state.default_headers.append(CLOSE_HEADER)  # applies to running requests too
        await self._wait(self._options.shutdown_delay_seconds, lambda: False)
        await self._stop_accepting(sockets or [])
        await self._drain()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _wait(self, seconds: float, is_done: Callable[[], bool]) -> None:
        """Do the periodic work until `is_done`, for at most `seconds`."""
        end = self._clock.monotonic() + seconds
        while not (is_done() or self.force_exit) and self._clock.monotonic() < end:
            await self.on_tick(0)
            self.server_state.default_headers.append(CLOSE_HEADER)
            await self._clock.sleep(POLL_SECONDS)

    async def _stop_accepting(self, sockets: Sequence[socket.socket]) -> None:
        """Close the listening sockets, and accept the clients that have connected before."""
        copies = [
            socket.fromfd(listener.fileno(), listener.family, listener.type)
            for server in self.servers
            for listener in server.sockets
        ]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        for copy in copies:
            with copy:
                await self._accept_all(copy)

    async def _accept_all(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:  # no more connections
                return
            await self._loop.connect_accepted_socket(self._make_connection, accepted, ssl=self.config.ssl)

    def _make_connection(self) -> asyncio.Protocol:
        return HttpConnection(self.config, self.server_state, self.lifespan.state, self._loop)

    async def _drain(self) -> None:
        """Wait for the answers to running requests, within the limit of the options."""
        idle_seconds = min(IDLE_SECONDS, self._options.shutdown_timeout_seconds)
        await self._wait(idle_seconds, self._is_drained)
        await self._wait(self._options.shutdown_timeout_seconds - idle_seconds, self._close_idle)
        if not self._is_drained():
            await self._abort_requests()

    def _is_drained(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)

    def _close_idle(self) -> bool:
        for connection in self.server_state.all():
            connection.close_if_idle()
        return self._is_drained()

    async def _abort_requests(self) -> None:
        state = self.server_state
        _log.warning("requests_cut_off", extra={"requests": len(state.tasks)})
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)  # one line for all is enough
        for connection in state.all():
            connection.abort_request()
        tasks = tuple(state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=UNWIND_SECONDS / 4)


def _as_sigterm(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
