"""One request of a connection and its answer: uvicorn's, with two changes.

- An answer in one message (`http.response.whole`) is written at once.
- uvicorn keeps the connection open if an answer begins before the end of its request. This module closes the
  connection unless the rest of the request is short, and gives the client time to read the answer.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from src.api.responses.ready_response import WHOLE_RESPONSE, parts_of
from src.server.refusal import CLOSE_HEADER

DRAINED_BYTES = 64 * 1024
"""The longest body that is still received and dropped after its request has been answered."""


class Exchange(RequestResponseCycle):
    """One request and its answer.

    Attributes:
        closes_gently: Whether the connection ends after this answer although the client may still be sending.
    """

    closes_gently = False

    @property
    def send(self) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """The function that sends the answer. The property is read once per request."""
        return self._send_early if self.more_body or self.access_log else self._send

    async def _send(self, message: Any) -> None:  # noqa: ANN401
        """Send a whole answer, or a part of an answer like uvicorn."""
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
        """Send an answer, or a part of it, to a request that had not ended at the call of the application.

        This method also sends all answers if uvicorn logs each one.
        """
        if message["type"] == WHOLE_RESPONSE:
            for part in parts_of(message):
                await self._send_early(part)
            return
        if message["type"] == "http.response.start":
            self.keep_alive = self.keep_alive and (not self.more_body or self._is_rest_short())
        elif self.more_body and not self.keep_alive and not message.get("more_body", False):
            # uvicorn would close the connection now. With unread bytes that causes a TCP reset, which could
            # destroy the answer.
            self.keep_alive = self.closes_gently = True
        await super().send(message)

    def _is_rest_short(self) -> bool:
        if self.waiting_for_100_continue:
            return False  # the client may never send the body
        length = next((value for name, value in self.scope["headers"] if name == b"content-length"), None)
        return length is not None and int(length) <= DRAINED_BYTES
