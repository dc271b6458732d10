"""Lua scripts: each is read once from its file, together with the files that it includes.

Every decision that several workers must agree on is one script. A script takes the time from the server: it
calls `now_us()`, which the time source defines before the script begins. A test passes another time source
and moves the time by hand.

A file names the files that it includes, one a line, by the path from its own folder and without the ending:

    -- @include ../redis/now

Each included file stands once in the script, before the file that includes it.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SERVER_TIME = """
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""
"""Lua that defines `now_us()`: the server's Unix time in whole microseconds."""

_INCLUDE = re.compile(r"^-- @include (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script ready to be run by EVALSHA.

    Attributes:
        source: The whole text, included files and time source first.
        sha: SHA-1 of the source in hex, as Redis computes it.
    """

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


@cache
def load_script(path: Path, *, after: Path | None = None, time_source: str = SERVER_TIME) -> Script:
    """Read a script.

    Args:
        path: Its file.
        after: A file that defines what `path` and its included files leave open. It stands before them.
        time_source: Lua that defines `now_us()`.

    Raises:
        OSError: A file is missing.
    """
    files = {file: None for first in (after, path) if first is not None for file in _with_included(first)}
    return Script("\n".join((time_source, *(file.read_text(encoding="utf-8") for file in files))))


def _with_included(path: Path) -> Iterator[Path]:
    """Yield the files that `path` includes, theirs before them, and `path` last. A file may come twice."""
    for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
        yield from _with_included((path.parent / f"{name}.lua").resolve())
    yield path.resolve()


COMMAND = load_script(Path(__file__).parent / "command.lua")
"""Runs one command: ARGV are its name and the arguments that stand after the keys."""
