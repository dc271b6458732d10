"""The version of the layout of metrics in Redis.

Since layout 2, `m:layout` contains the version. Layout 1 stored each point as a member of a sorted set. It is
recognised by the key `m:{<type>}:seq`, which counted the points of a type.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from src.resilience.redis.port import Reply
from src.storage.metrics.layout import key_of
from src.storage.redis.connection import Command

LAYOUT_VERSION = "2"
VERSION_KEY = "m:layout"

TYPES_AT_ONCE = 1_000
"""The number of types whose keys are checked in one round trip."""

SendRaw: TypeAlias = Callable[..., Awaitable[Sequence[Reply]]]
"""Sends commands, and returns their replies. The refusal of a command is a reply, too."""


class OtherLayoutError(Exception):
    """Redis holds metrics in a layout that this version does not read. The message is one line."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"Redis holds metrics in layout {found}, and this version reads layout {LAYOUT_VERSION}: export "
            "them from the version that stored them (python -m src.cli export), choose an empty database, "
            "and import them (python -m src.cli import), as docs/cli.md describes"
        )


async def check_layout(send: SendRaw) -> None:
    """Check that Redis has metrics in this layout or none, and write the version if it is missing.

    If Redis refuses the command, the layout counts as correct: the service works without this permission.

    Args:
        send: Sends commands.

    Raises:
        OtherLayoutError: Redis has metrics in another layout.
        RedisError: Redis does not answer.
    """
    (found,) = await send(("GET", VERSION_KEY))
    if isinstance(found, bytes):
        version = found.decode(errors="replace")
    elif found is None:
        version = await _version_by_keys(send)
        if version == LAYOUT_VERSION:
            await send(("SET", VERSION_KEY, LAYOUT_VERSION, "NX"))
    else:
        return
    if version != LAYOUT_VERSION:
        raise OtherLayoutError(version)


async def _version_by_keys(send: SendRaw) -> str:
    (names,) = await send(("ZRANGE", "types", 0, -1))
    if not isinstance(names, list):
        return LAYOUT_VERSION
    for first in range(0, len(names), TYPES_AT_ONCE):
        some = names[first : first + TYPES_AT_ONCE]
        commands: list[Command] = [("EXISTS", key_of(name.decode(), "seq")) for name in some]
        if 1 in await send(*commands):
            return "1"
    return LAYOUT_VERSION
