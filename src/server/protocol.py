"""One HTTP/1.1 connection: uvicorn's connection with additional checks and limits.

This module changes the behaviour of uvicorn and httptools in these points:

- uvicorn adds trailers to the headers of their request. This module drops trailers (RFC 9110, section 6.5.1).
- uvicorn serves a request with no Host or two Hosts, or with the version HTTP/0.9 or HTTP/2. This module
  rejects these requests (RFC 9112, sections 2.3 and 3.2). It also rejects every Transfer-Encoding except
  `chunked`, and every Transfer-Encoding in HTTP/1.0.
- uvicorn loses the body of a request with an `Upgrade` header, and all data after it. Java's HttpClient sends
  this header with each request. This module ignores the header (RFC 9110, section 7.8).
- uvicorn answers a malformed request before the answers to earlier requests. This module sends the earlier
  answers.
- uvicorn limits neither the size and the time of a head nor the time in which a client reads an answer. This
  module has limits.
- uvicorn sets and cancels a timer for each request. This module checks all connections once a second.
"""

import asyncio
import logging
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from src.api.errors import INTERNAL_ERROR, Problem
from src.api.responses.ready_response import EXTENSIONS
from src.server import refusal
from src.server.connections import ClientWait, Connections
from src.server.exchange import Exchange
from src.server.refusal import RefusedRequestError
from src.telemetry.instruments import count_refusal

_log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""The longest time in which a client must close the connection after the last answer."""

STALLED_SECONDS = 60.0
"""The longest time for which a client may read no byte of an answer."""


class HttpConnection(HttpToolsProtocol):
    """One connection. uvicorn creates it; the state of the server must be a `Connections`."""

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
        self._connections = server_state
        self._max_head_bytes = server_state.options.max_head_bytes
        # Bytes since the last complete head or piece of a body: an upper bound of an incomplete head.
        self._pending_bytes = 0
        self._has_ended = False

    # ---------------------------------------------------------------- called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the connection, or reject it if there are too many."""
        is_admitted = self._connections.admit()
        super().connection_made(transport)
        if not is_admitted:
            self._report(refusal.TOO_MANY_CONNECTIONS)
            self._answer(refusal.TOO_MANY_CONNECTIONS)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and start the requests in it."""
        if self._has_ended:
            return
        self._pending_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._parse_without_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(self._parse_problem(error.__context__))
        else:
            if self._pending_bytes > self._max_head_bytes:
                self._reject(refusal.HEAD_TOO_LARGE)

    # ---------------------------------------------------------------- called by the parser

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header or a trailer to the current list."""
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or self.parser.get_http_version() != "1.1":
                raise RefusedRequestError(refusal.TRANSFER_ENCODING_UNKNOWN)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start a request, or queue it behind an unanswered one."""
        parser = self.parser
        method = parser.get_method()
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise RefusedRequestError(refusal.NO_TUNNEL)
            return  # the parser stops, and `data_received` continues without the upgrade
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
            "scheme": self.scheme,  # type: ignore[typeddict-item]  # set by connection_made
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
        self.headers = []  # receives the trailers, which are ignored
        self._pending_bytes = 0
        previous = self.cycle
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
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body to the request."""
        self._pending_bytes = 0
        HttpToolsProtocol.on_body(self, body)

    def _should_upgrade(self) -> bool:
        """Return True, so that uvicorn leaves a request with an upgrade to `data_received`."""
        return True

    def _check_head(self, version: str) -> None:
        """Raise `RefusedRequestError` if the head is not acceptable."""
        if self._pending_bytes > self._max_head_bytes and self._head_bytes() > self._max_head_bytes:
            raise RefusedRequestError(refusal.HEAD_TOO_LARGE)
        if version != "1.1" and version != "1.0":  # noqa: PLR1714 -- a set would take twice as long
            raise RefusedRequestError(refusal.VERSION_UNKNOWN)
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise RefusedRequestError(refusal.HOST_UNCLEAR)

    def _parse_problem(self, cause: BaseException | None) -> Problem:
        """Return the problem after the parser failed, or after one of its callbacks raised `cause`."""
        if isinstance(cause, RefusedRequestError):
            return cause.problem
        if cause is None or isinstance(cause, httptools.HttpParserError):
            return refusal.MALFORMED
        self.logger.error("A request could not be started", exc_info=cause)
        return INTERNAL_ERROR

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _parse_without_upgrade(self, rest: memoryview) -> None:
        """Parse the last head again without its Upgrade header, and then `rest`."""
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

    # ---------------------------------------------------------------- the end of answers and connections

    def on_response_complete(self) -> None:
        """Start the next request in the queue, if any."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.cycle is not None and self.cycle.closes_gently:
            self._end()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _reject(self, problem: Problem) -> None:
        """Stop reading, and answer `problem`. If an earlier request is unanswered, its answer is the last."""
        self._report(problem)
        request = self._unanswered
        if request is None:
            self._answer(problem)
            self._end()
        elif not request.more_body:
            self._has_ended = True
            request.keep_alive = False  # the connection ends after the answer to this earlier request
        elif request.response_started or self.pipeline:
            self.transport.close()
        else:
            self._answer_for(request, problem)
            self._end()

    def _report(self, problem: Problem) -> None:
        count_refusal(problem.status)
        _log.info("request_refused", extra={"status": problem.status, "detail": problem.message})

    def _answer_for(self, cycle: Exchange, problem: Problem) -> None:
        """Answer `problem` instead of the service, which receives a disconnect."""
        self._answer(problem)
        cycle.disconnected = True
        cycle.message_event.set()

    def _answer(self, problem: Problem) -> None:
        self.transport.write(
            refusal.render(problem, self._connections.clock.now(), self.server_state.default_headers)
        )

    def _end(self) -> None:
        """Close the sending side, so that the client has time to read the answer and to close."""
        self._has_ended = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # ---------------------------------------------------------------- called by the server

    def client_wait(self) -> ClientWait | None:
        """Return the wait for the client's next action; None if the server itself has to act."""
        options = self._connections.options
        if unsent := self.transport.get_write_buffer_size():
            return ClientWait(("read", unsent), STALLED_SECONDS)
        if self._unanswered is not None:
            return None
        if self._has_ended or self.transport.is_closing():
            return ClientWait("close", LINGER_SECONDS)
        if self.cycle is None or self._pending_bytes:
            return ClientWait(("send a head", self.cycle), options.head_timeout_seconds)
        return ClientWait(("send a request", self.cycle), options.keep_alive_seconds)

    def expire(self) -> None:
        """End the connection, since its client took too long for the expected action."""
        if self._has_ended or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._pending_bytes:
            self._reject(refusal.HEAD_TOO_SLOW)
        else:
            self.transport.close()

    def close_if_idle(self) -> bool:
        """Close the connection if it has no unanswered request, and return whether it was closed."""
        is_idle = self._unanswered is None
        if is_idle:
            self.transport.close()
        return is_idle

    def abort_request(self) -> None:
        """End the connection. A request whose answer has not begun gets a 503, since the server stops."""
        request = self._unanswered
        if request is None or request.response_started or self.pipeline:
            self.transport.abort()
        else:
            self._answer_for(request, refusal.STOPPING)
            self.transport.close()

    @property
    def _unanswered(self) -> Exchange | None:
        """The newest request, if it is unanswered."""
        cycle = self.cycle
        return None if cycle is None or cycle.response_complete or cycle.disconnected else cycle
