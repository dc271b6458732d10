"""uvicorn's server, whose start a signal ends, and whose end cuts off no request.

What uvicorn does, and what is done here instead:

- A signal during the start is looked at once the start is over. Here it ends the start.
- SIGHUP and SIGQUIT end the process at once. Here a process that is no worker ends as by SIGTERM.
- Workers outlive their parent. Here they stop.
- At a stop, connections that were not accepted yet and idle ones are closed at once, which cuts off requests
  on their way. Here the former are accepted, and both may send one more request.
- A request that takes longer than the stop may take is answered 500 in plain text. Here it is answered 503.
- Nothing bounds what happens after that. Here the process ends within `ServerOptions.longest_stop_seconds`.
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
from src.server.descriptors import connections_that_fit
from src.server.options import UNWIND_SECONDS, ServerOptions
from src.server.protocol import HttpConnection
from src.server.refusal import CLOSE_HEADER

IDLE_SECONDS = 1.0
"""How long an idle connection may still send a request once the server accepts no more connections."""

POLL_SECONDS = 0.05

_START_STOP_SECONDS = 5.0
"""How long a start may take to stop, before the process ends all the same."""

_startup = uvicorn.Server.startup
"""uvicorn's own, which `install` replaces."""

_log = logging.getLogger(__name__)


def install(options: ServerOptions) -> None:
    """Make a `Server` of each uvicorn server of this process, as it starts.

    It may be called as late as while uvicorn imports the application: nothing is read before `startup`.
    """

    async def startup(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        self.__class__ = Server
        assert isinstance(self, Server)
        self.prepare(options, SystemClock())
        await self.startup(sockets)

    uvicorn.Server.startup = startup  # type: ignore[method-assign]


class StartStoppedError(Exception):
    """The start was stopped by a signal."""


class Lifespan(LifespanOn):
    """The lifespan of the application, whose start can be stopped."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()
        self._running: asyncio.Task[Any] | None = None

    def stop_start(self) -> None:
        """Have `startup` raise once the application has left what it had begun. Later it does nothing."""
        self._stop.set()

    async def startup(self) -> None:
        """Start the application.

        Raises:
            StartStoppedError: `stop_start` was called before the application had started.
        """
        starting = asyncio.create_task(super().startup())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((starting, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if starting.done():
            return starting.result()
        starting.cancel()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        raise StartStoppedError

    async def main(self) -> None:
        """Run the application's lifespan."""
        self._running = asyncio.current_task()
        await super().main()

    async def send(self, message: Any) -> None:  # noqa: ANN401 -- uvicorn's type is private
        """Take what the application reports, without the traceback of a start that was stopped or refused."""
        if message["type"] == "lifespan.startup.failed":
            refusal = sys.exception()
            if self._stop.is_set():
                message = {"type": message["type"]}
            elif isinstance(refusal, SystemExit):
                message = {"type": message["type"], "message": str(refusal)}
        await super().send(message)


class Server(uvicorn.Server):
    """uvicorn's server once it starts. What `prepare` sets is there from then on."""

    server_state: Connections

    def prepare(self, options: ServerOptions, clock: Clock) -> None:
        """Take the place of a uvicorn server that is about to start.

        Args:
            options: What the operator decided.
            clock: Everything's.
        """
        options = replace(options, max_connections=connections_that_fit(options.max_connections))
        self._options = options
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.server_state = Connections(options, clock)
        config = self.config
        config.http_protocol_class = HttpConnection
        config.ws_protocol_class = None  # there are no websockets
        if isinstance(config.loaded_app, ProxyHeadersMiddleware):
            config.loaded_app = config.loaded_app.app  # src.api.client_address decides whom to believe
        if isinstance(self.lifespan, LifespanOn):
            self.lifespan = Lifespan(config)

    # ---------------------------------------------------------------- the start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, unless a signal comes first."""
        self._handle_signals()
        self._stop_with_parent()
        if self.should_exit:  # a signal came while the application was imported
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
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
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
        """Begin to stop. The handler of `HANDLED_SIGNALS`, in the main thread."""
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
        """Do what is due, ten times a second, and return whether to stop."""
        if counter % 10 == 0:
            self.server_state.sweep()
        return await super().on_tick(counter)

    # ---------------------------------------------------------------- the stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: answer what was sent, close what is idle, and have the application close its parts."""
        _log.info("stopping", extra={"connections": len(self.server_state.connections)})
        self.server_state.default_headers.append(CLOSE_HEADER)  # of the requests under way, too
        await self._wait(self._options.shutdown_delay_seconds, lambda: False)
        await self._stop_accepting(sockets or [])
        await self._drain()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _wait(self, seconds: float, is_done: Callable[[], bool]) -> None:
        """Do what is due until `is_done`, for so many seconds at most."""
        end = self._clock.monotonic() + seconds
        while not (is_done() or self.force_exit) and self._clock.monotonic() < end:
            await self.on_tick(0)
            self.server_state.default_headers.append(CLOSE_HEADER)
            await self._clock.sleep(POLL_SECONDS)

    async def _stop_accepting(self, sockets: Sequence[socket.socket]) -> None:
        """Close the listening sockets, and accept what had connected before."""
        copies = [
            socket.fromfd(listening.fileno(), listening.family, listening.type)
            for server in self.servers
            for listening in server.sockets
        ]
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()
        for copy in copies:
            with copy:
                await self._accept_all(copy)

    async def _accept_all(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:  # there are no more
                return
            await self._loop.connect_accepted_socket(self._connection, connected, ssl=self.config.ssl)

    def _connection(self) -> asyncio.Protocol:
        return HttpConnection(self.config, self.server_state, self.lifespan.state, self._loop)

    async def _drain(self) -> None:
        """Wait for the answers that are due, for no longer than the options say."""
        idle_seconds = min(IDLE_SECONDS, self._options.shutdown_timeout_seconds)
        await self._wait(idle_seconds, self._is_drained)
        await self._wait(self._options.shutdown_timeout_seconds - idle_seconds, self._close_idle)
        if not self._is_drained():
            await self._give_up()

    def _is_drained(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)

    def _close_idle(self) -> bool:
        for connection in self.server_state.open():
            connection.close_if_idle()
        return self._is_drained()

    async def _give_up(self) -> None:
        state = self.server_state
        _log.warning("requests_cut_off", extra={"requests": len(state.tasks)})
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)  # the line above says it for all
        for connection in state.open():
            connection.give_up()
        tasks = tuple(state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=UNWIND_SECONDS / 4)


def _as_sigterm(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
