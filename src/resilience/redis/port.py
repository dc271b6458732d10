"""The port through which the patterns use Redis: run a script on keys, or send commands."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from .scripts import Script

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Argument, ...]
Reply: TypeAlias = Any
"""A value of RESP2: bytes, int, None, an error, or a list of these. Each form narrows its own replies."""


class ScriptRunner(Protocol):
    """Runs scripts and sends commands. All keys of one script, and of one command, are in one slot.

    A runner limits the time that each call takes. It never decodes replies.
    """

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Reply:
        """Run `script` on `keys` and return its reply.

        Raises:
            StoreUnavailableError: Redis is unavailable, or takes too long. The script may have been run.
            StoreRefusedError: Redis answers and refuses: its memory is full, it may not be written to, …
            redis.exceptions.RedisError: A key holds a foreign value, or the script is wrong.
        """
        ...

    async def send(self, *command: Argument) -> Reply:
        """Send one command and return its reply. Raises as `run` does."""
        ...

    async def send_all(self, commands: Iterable[Command]) -> list[Reply]:
        """Send several commands and return their replies. Raises as `run` does, for the first that failed.

        Commands of other callers may come between them.
        """
        ...

    def checked(self, reply: Reply) -> Reply:
        """Return `reply`, a part of a script's reply, or raise as `run` does if it is an error."""
        ...
