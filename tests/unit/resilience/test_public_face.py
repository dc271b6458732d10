"""The package as its users import it."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import src.resilience as package

EDGES = tuple(
    f"src.resilience.{name}"
    for name in (
        "client_address",
        "fastapi",
        "http_date",
        "httpx",
        "pytest_plugin",
        "rate_limiter.headers",
        "telemetry",
        "testing",
    )
)
"""Modules for users of something beyond the standard library; the package does not import them."""

MODULES = [
    module.name
    for module in pkgutil.walk_packages(package.__path__, "src.resilience.")
    if not module.ispkg
    and "redis" not in module.name.split(".")  # these need redis-py
    and not module.name.startswith(EDGES)
]


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_can_be_had_from_the_package(module):
    module = importlib.import_module(module)
    public = {
        name: item
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__ == module.__name__
    }
    assert public, "a module of private things only"
    assert {name: getattr(package, name, None) for name in public} == public
    assert public.keys() <= set(package.__all__)


def test_the_package_lists_nothing_that_it_does_not_have():
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert len(set(package.__all__)) == len(package.__all__)


def test_importing_the_package_loads_the_standard_library_alone():
    program = "import sys, src.resilience; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True
    )  # -S: what the installed packages load at start is not ours
    foreign = {name for name in ran.stdout.split() if name not in sys.stdlib_module_names}
    assert foreign <= {"src", "__main__"}
