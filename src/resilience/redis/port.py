"""The port through which the patterns use Redis: run a Lua script on keys."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from .scripts import Script

Argument: TypeAlias = bytes | str | int | float
Reply: TypeAlias = Any
"""A value of RESP2: bytes, int, None, an error, or a list of these."""


@runtime_checkable
class ScriptRunner(Protocol):
    """Runs scripts. An implementation limits the time of each run, and returns replies as bytes."""

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Reply:
        """Run `script` and return its reply.

        Args:
            script: The script.
            keys: The KEYS of the script. All keys must be in one slot: they are equal, or have the same
                {tag}.
            arguments: The ARGV of the script.

        Raises:
            StoreUnavailableError: Redis is unavailable, or takes too long. The script may have been run.
            StoreRefusedError: Redis refused the script: its memory is full, it is read-only, …
            redis.exceptions.RedisError: A key holds a value of another program, or the script is wrong.
        """
        ...

    def checked(self, reply: Reply) -> Reply:
        """Return `reply`, a part of a script's reply. If it is an error of Redis, raise it as `run` does."""
        ...
