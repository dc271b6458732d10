"""The Lua scripts: read once from `lua/`, each with the prelude it needs, known by its SHA-1.

Every decision that several workers must agree on is one script. Time comes from the server: a script that
needs it calls `now_us()`, which the time source put before the script defines. A test hands in another time
source and moves time by hand; nothing else about the script changes.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "lua"

SERVER_TIME = """
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""
"""Lua that defines `now_us()`: the server's Unix time in whole microseconds."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script ready to be run by EVALSHA.

    Attributes:
        source: The whole text, prelude included.
        sha: SHA-1 of the source in hex, as Redis computes it.
    """

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


@cache
def load_script(name: str, *preludes: str, time_source: str = SERVER_TIME) -> Script:
    """Read `lua/<name>.lua`.

    Args:
        name: File name without the ending.
        preludes: Names of further files whose local functions the script uses, put before it in order.
        time_source: Lua that defines `now_us()`.
    """
    files = [(_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in (*preludes, name)]
    return Script("\n".join((time_source, *files)))
