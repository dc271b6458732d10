"""The public names of the library by module, and the cost of an import."""

import importlib
import inspect
import pkgutil
import subprocess
from pathlib import Path

import src.resilience as package

EDGES = tuple(
    f"src.resilience.{name}"
    for name in (
        "fastapi",
        "http",
        "httpx",
        "pytest_plugin",
        "rate_limiter.headers",
        "telemetry",
        "testing",
    )
)
"""Modules for users of something beyond the standard library; no other module imports them."""

MODULES = [
    module.name
    for module in pkgutil.walk_packages(package.__path__, "src.resilience.")
    if not module.ispkg
    and "redis" not in module.name.split(".")  # these need redis-py
    and not module.name.startswith(EDGES)
]
"""The modules that need only the standard library."""


def public_names(module: str) -> dict[str, object]:
    """Return the public classes and functions that `module` defines, by name."""
    loaded = importlib.import_module(module)
    return {
        name: item
        for name, item in vars(loaded).items()
        if not name.startswith("_")
        and (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__ == module
    }


PUBLIC = {name: item for module in MODULES for name, item in public_names(module).items()}
"""The public classes and functions of all of them, by name."""


LOADS = 20


def cpu_seconds(python: str | Path, program: str) -> float:
    """Return the processor time in which `python` runs `program`: the least of some runs."""
    import resource  # not on Windows

    times = []
    for _ in range(LOADS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)
