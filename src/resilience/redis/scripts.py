"""Lua scripts: each is read once from its file, together with the files that it includes.

Each decision that several workers share is one script. A script reads the server's time through `now_us()`.
The time source defines this function at the beginning of the script. Tests pass a time source that they
control.

A file names each file that it includes on a separate line, by the path from its folder and without `.lua`:

    -- @include ../redis/now

The script contains each included file once, before the file that includes it.
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
        source: The complete text: the time source, the included files, then the file itself.
        sha: The SHA-1 digest of the source in hexadecimal, as EVALSHA needs it.
    """

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


@cache
def load_script(path: Path, *, after: Path | None = None, time_source: str = SERVER_TIME) -> Script:
    """Read a script and the files that it includes.

    Args:
        path: The file of the script.
        after: A file whose text comes before that of `path`. It defines functions that `path` uses and does
            not include. None: no such file.
        time_source: Lua code that defines `now_us()`.

    Raises:
        OSError: A file is missing.
    """
    files = {file: None for first in (after, path) if first is not None for file in _with_included(first)}
    return Script("\n".join((time_source, *(file.read_text(encoding="utf-8") for file in files))))


def _with_included(path: Path) -> Iterator[Path]:
    """Yield the files that `path` includes, recursively and in order, then `path`. A file may come twice."""
    for name in _INCLUDE.findall(path.read_text(encoding="utf-8")):
        yield from _with_included((path.parent / f"{name}.lua").resolve())
    yield path.resolve()


COMMAND = load_script(Path(__file__).parent / "command.lua")
"""The script that runs a single command. ARGV holds the command's name and its arguments after the keys."""
