"""The Lua scripts of the storage, each beside the module that runs it."""

from pathlib import Path

from src.resilience.redis.scripts import SERVER_TIME, Script, load_script

_FOLDER = Path(__file__).parents[1]


def storage_script(name: str, *, after: Path | None = None, time_source: str = SERVER_TIME) -> Script:
    """Read the script `src/storage/<name>.lua`. `load_script` documents the other arguments."""
    return load_script(_FOLDER / f"{name}.lua", after=after, time_source=time_source)
