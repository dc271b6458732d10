"""One HTTP/1.1 connection: uvicorn's, with the checks and the limits that it lacks.

What uvicorn and httptools do, and what is done here instead:

- Trailers are added to the headers of their request. Here they are dropped (RFC 9110, section 6.5.1).
- A request without a Host or with two is served, and so is one that says HTTP/0.9 or HTTP/2. Here all are
  refused (RFC 9112, sections 2.3 and 3.2), and so is each Transfer-Encoding but `chunked`, and any in
  HTTP/1.0.
- A request that asks for an upgrade loses its body and what comes after it. Java's HttpClient asks for one
  each time. Here the upgrade is ignored (RFC 9110, section 7.8).
- An answer that begins before its request has ended leaves the connection open. Here it ends the connection,
  unless the rest is short, and the client has time to read the answer.
- A request that can't be read is answered at once, even if an earlier answer is due. Here the earlier is
  sent.
- A head may have any size and take any time, and an answer may stay unread for good. Here there are limits.
- Each request sets a timer and cancels it. Here all connections are looked at once a second.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from src.api.errors import INTERNAL_ERROR, Problem
from src.api.whole_response import EXTENSIONS, WHOLE_RESPONSE, parts_of
from src.server import refusal
from src.server.connections import Awaited, Connections
from src.server.refusal import CLOSE_HEADER, RefusedRequestError
from src.telemetry.instruments import count_refusal

_log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""How long a client may take to close its end after the last answer."""

STALLED_SECONDS = 60.0
"""How long a client may take none of the bytes that wait for it."""

DRAINED_BYTES = 64 * 1024
"""The longest body that is still received, and dropped, once its request has been answered."""


class Exchange(RequestResponseCycle):
    """One request and its answer.

    Attributes:
        closes_gently: Whether the connection ends with this answer while the client may still be sending.
    """

    closes_gently = False

    @property
    def send(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """What sends the answer. It is looked up once, as the application is called."""
        return self._send_early if self.more_body or self.access_log else self._send

    async def _send(self, message: Any) -> None:  # noqa: ANN401
        """Send the whole answer, or a part of it as uvicorn does."""
        if message["type"] != WHOLE_RESPONSE:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        headers = [*self.default_headers, *message["headers"]]
        head = STATUS_LINE[message["status"]] + b"\r\n".join(map(b": ".join, headers))
        if not head.count(b"\r") == head.count(b"\n") == len(headers):
            raise RuntimeError("a header of the answer has a line break")
        end = b"\r\n\r\n"
        if CLOSE_HEADER in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            end = b"\r\nconnection: close\r\n\r\n"
        self.transport.write(head + end + message["body"])
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    async def _send_early(self, message: Any) -> None:  # noqa: ANN401
        """Send an answer, or a part of it, to a request that had not ended when the application was called.

        It is also what sends where uvicorn logs each answer.
        """
        if message["type"] == WHOLE_RESPONSE:
            for part in parts_of(message):
                await self._send_early(part)
            return
        if message["type"] == "http.response.start":
            self.keep_alive = self.keep_alive and (not self.more_body or self._rest_is_short())
        elif self.more_body and not self.keep_alive and not message.get("more_body", False):
            # uvicorn would close now. With bytes unread that is a reset, by which the answer could be lost.
            self.keep_alive = self.closes_gently = True
        await super().send(message)

    def _rest_is_short(self) -> bool:
        if self.waiting_for_100_continue:
            return False  # nobody can know whether the body will come
        length = next((value for name, value in self.scope["headers"] if name == b"content-length"), None)
        return length is not None and int(length) <= DRAINED_BYTES


class HttpConnection(HttpToolsProtocol):
    """One connection. It is made as uvicorn makes its own; the state of the server is `Connections`."""

    cycle: Exchange | None  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, Connections)
        self._all = server_state
        self._max_head_bytes = server_state.options.max_head_bytes
        # Received since the last complete head or piece of a body: no head and no trailers have more.
        self._pending_bytes = 0
        self._has_ended = False

    # ---------------------------------------------------------------- what the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; or refuse, where there are too many connections."""
        is_admitted = self._all.admit()
        super().connection_made(transport)
        if not is_admitted:
            self._report(refusal.TOO_MANY_CONNECTIONS)
            self._answer(refusal.TOO_MANY_CONNECTIONS)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and begin the requests in it."""
        if self._has_ended:
            return
        self._pending_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._parse_without_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(self._problem_of(error.__context__))
        else:
            if self._pending_bytes > self._max_head_bytes:
                self._refuse(refusal.HEAD_TOO_LARGE)

    # ---------------------------------------------------------------- what the parser calls

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, or a trailer, to what is read."""
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or self.parser.get_http_version() != "1.1":
                raise RefusedRequestError(refusal.CODING_UNKNOWN)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin a request, or have it wait for its turn."""
        parser = self.parser
        method = parser.get_method()
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise RefusedRequestError(refusal.NO_TUNNEL)
            return  # `data_received` takes it from here
        version = parser.get_http_version()
        self._check_head(version)
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self.scheme,  # type: ignore[typeddict-item]  # a connection that was made has one
            "path": self.root_path + (unquote(path) if "%" in path else path),
            "raw_path": self.root_path.encode("ascii") + raw_path,
            "query_string": url.query or b"",
            "root_path": self.root_path,
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
            "state": self.app_state.copy(),
            "extensions": EXTENSIONS,
        }
        self.headers = []  # what trailers are added to, and nobody reads
        self._pending_bytes = 0
        before = self.cycle
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body to the request."""
        self._pending_bytes = 0
        HttpToolsProtocol.on_body(self, body)

    def _should_upgrade(self) -> bool:
        """Return True, which has uvicorn leave a request that asks for an upgrade to `data_received`."""
        return True

    def _check_head(self, version: str) -> None:
        """Raise `RefusedRequestError` if the head may not begin a request."""
        if self._pending_bytes > self._max_head_bytes and self._head_bytes() > self._max_head_bytes:
            raise RefusedRequestError(refusal.HEAD_TOO_LARGE)
        if version != "1.1" and version != "1.0":  # noqa: PLR1714 -- in half the time of a set
            raise RefusedRequestError(refusal.VERSION_UNKNOWN)
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise RefusedRequestError(refusal.HOST_UNCLEAR)

    def _problem_of(self, cause: BaseException | None) -> Problem:
        """Return what is answered where the parser stopped, or one of its callbacks raised `cause`."""
        if isinstance(cause, RefusedRequestError):
            return cause.problem
        if cause is None or isinstance(cause, httptools.HttpParserError):
            return refusal.MALFORMED
        self.logger.error("A request could not be begun", exc_info=cause)
        return INTERNAL_ERROR

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _parse_without_upgrade(self, rest: memoryview) -> None:
        """Parse the last head again, but for the header that asks for an upgrade, and then `rest`."""
        while True:
            version = self.parser.get_http_version().encode()
            request_line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
            headers = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(b"\r\n".join((request_line, *headers, b"", b"")))
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            else:
                return

    # ---------------------------------------------------------------- how answers and connections end

    def on_response_complete(self) -> None:
        """Begin the request that waits, if any."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.cycle is not None and self.cycle.closes_gently:
            self._end()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _refuse(self, problem: Problem) -> None:
        """Read no further, and answer `problem` to what could not be read unless an earlier answer is due."""
        self._report(problem)
        request = self._unanswered
        if request is None:
            self._answer(problem)
            self._end()
        elif not request.more_body:
            self._has_ended = True
            request.keep_alive = False  # so the connection ends with the answer that is due
        elif request.response_started or self.pipeline:
            self.transport.close()
        else:
            self._answer_for(request, problem)
            self._end()

    def _report(self, problem: Problem) -> None:
        count_refusal(problem.status)
        _log.info("request_refused", extra={"status": problem.status, "detail": problem.message})

    def _answer_for(self, cycle: Exchange, problem: Problem) -> None:
        """Answer `problem` in place of the service, which receives a disconnect."""
        self._answer(problem)
        cycle.disconnected = True
        cycle.message_event.set()

    def _answer(self, problem: Problem) -> None:
        self.transport.write(
            refusal.rendered(problem, self._all.clock.now(), self.server_state.default_headers)
        )

    def _end(self) -> None:
        """Say that nothing more will be sent, and give the client time to read the answer and to close."""
        self._has_ended = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # ---------------------------------------------------------------- what the server does with connections

    def awaited(self) -> Awaited | None:
        """Return what the client is to do next; None while it is for the server to do something."""
        options = self._all.options
        if unsent := self.transport.get_write_buffer_size():
            return Awaited(("to read", unsent), STALLED_SECONDS)
        if self._unanswered is not None:
            return None
        if self._has_ended or self.transport.is_closing():
            return Awaited("to close", LINGER_SECONDS)
        if self.cycle is None or self._pending_bytes:
            return Awaited(("to send a head", self.cycle), options.head_timeout_seconds)
        return Awaited(("to send a request", self.cycle), options.keep_alive_seconds)

    def expire(self) -> None:
        """End the connection, since its client took too long for what was awaited."""
        if self._has_ended or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._pending_bytes:
            self._refuse(refusal.HEAD_TOO_SLOW)
        else:
            self.transport.close()

    def close_if_idle(self) -> bool:
        """Close the connection if no answer is due on it, and return whether that was so."""
        is_idle = self._unanswered is None
        if is_idle:
            self.transport.close()
        return is_idle

    def give_up(self) -> None:
        """End the connection. A request whose answer has not begun gets a 503: the server is stopping."""
        request = self._unanswered
        if request is None or request.response_started or self.pipeline:
            self.transport.abort()
        else:
            self._answer_for(request, refusal.STOPPING)
            self.transport.close()

    @property
    def _unanswered(self) -> Exchange | None:
        """The newest request, if it is still to be answered."""
        cycle = self.cycle
        return None if cycle is None or cycle.response_complete or cycle.disconnected else cycle
