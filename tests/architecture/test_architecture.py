"""The architecture as tests."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from src.resilience import errors

MODULES = sorted(Path("src").rglob("*.py"))


LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.mark.skipif(not LINT_IMPORTS.exists(), reason="there is no import-linter here")
def test_imports_go_down_only():
    linted = subprocess.run([LINT_IMPORTS, "--no-cache"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_begins_with_a_docstring(module):
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


def test_a_folder_holds_at_most_a_dozen_modules():
    """The modules at the top of the library are its public names, which programs import."""
    modules = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    del modules[Path("src/resilience")]
    assert {folder: count for folder, count in modules.items() if count > 12} == {}


@pytest.mark.parametrize("script", sorted(Path("src").rglob("*.lua")), ids=str)
def test_every_script_begins_with_a_comment(script):
    assert script.read_text(encoding="utf-8").startswith("-- ")


def test_the_tree_of_errors_in_the_docstring_is_complete():
    drawn = set(re.findall(r"\b(\w+Error)\b", inspect.getdoc(errors) or ""))
    defined = {name for name, item in vars(errors).items() if inspect.isclass(item)}
    assert drawn == defined


def test_the_architecture_page_names_every_module():
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    missing = [
        str(module)
        for module in MODULES
        if module.name != "__init__.py" and "provider" not in module.parts and module.name not in page
    ]
    assert missing == []


def test_the_diagram_of_the_layers_shows_existing_modules_and_every_layer():
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    [diagram] = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)
    modules = re.findall(r"[\w/]+\.py", diagram)
    assert [module for module in modules if not (Path("src") / module).exists()] == []
    contracts = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [
        contract["layers"]
        for contract in contracts["contracts"]
        if contract["name"].startswith("Layers: imports go down only")
    ]
    titles = re.findall(r'subgraph \w+\["([\w, ]+)"\]', diagram)
    shown = {name for title in titles for name in title.split(", ")}
    # The simulated provider and the instruments are beside this path.
    assert shown == set(re.findall(r"\w+", " ".join(layers[1:]))) - {"provider", "telemetry"}


HTTPX_CALLS = {
    "AsyncClient",
    "Client",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "request",
    "stream",
}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_outgoing_calls_ignore_the_environment(module):
    """Outgoing calls use no proxy, certificate or credential from the environment."""
    calls = [
        node
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "httpx"
        and node.func.attr in HTTPX_CALLS
    ]
    for call in calls:
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert arguments.get("trust_env") == "False", f"line {call.lineno}"
