"""The ASGI extension `http.response.whole`: a whole response in one message.

The ASGI specification allows a server to understand further messages, which it names in the `extensions` of a
scope. This message has the members of `http.response.start` and the body. Two messages, each checked by the
server, take a quarter of the time of a refused request.
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import Message

WHOLE_RESPONSE: Final = "http.response.whole"
EXTENSIONS: Final[dict[str, dict[object, object]]] = {WHOLE_RESPONSE: {}}
"""The `extensions` of the scope where the server understands the message."""


def whole_response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Message:
    """Return the message.

    Args:
        status: HTTP status.
        headers: Names in lower case and values, the body's length among them if there may be a body.
        body: The whole body.
    """
    return {"type": WHOLE_RESPONSE, "status": status, "headers": headers, "body": body}


def parts_of(message: Message) -> tuple[Message, Message]:
    """Return the two messages by which every server sends the whole response of `message`."""
    return (
        {"type": "http.response.start", "status": message["status"], "headers": message["headers"]},
        {"type": "http.response.body", "body": message["body"], "more_body": False},
    )
