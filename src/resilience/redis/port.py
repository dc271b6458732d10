"""The port through which the patterns use Redis: run a script on keys."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from .scripts import Script

Argument: TypeAlias = bytes | str | int | float
Reply: TypeAlias = Any
"""A value of RESP2: bytes, int, None, an error, or a list of these. Each form narrows its own replies."""


@runtime_checkable
class ScriptRunner(Protocol):
    """Runs scripts. It limits the time that each run takes, and does not decode replies."""

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Reply:
        """Run `script` and return its reply.

        Args:
            script: What to run.
            keys: Its KEYS. They are in one slot: each is the same key, or has the same {tag}.
            arguments: Its ARGV.

        Raises:
            StoreUnavailableError: Redis is unavailable, or takes too long. The script may have been run.
            StoreRefusedError: Redis answers and refuses: its memory is full, it may not be written to, …
            redis.exceptions.RedisError: A key holds a foreign value, or the script is wrong.
        """
        ...

    def checked(self, reply: Reply) -> Reply:
        """Return `reply`, a part of a script's reply; raise as `run` does if it is an error of Redis."""
        ...
