"""The architecture as tests."""

import ast
import inspect
import re
import subprocess
import sys
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


def test_the_architecture_page_names_every_folder():
    picture = Path("docs/architecture.md").read_text(encoding="utf-8")
    missing = [
        str(module)
        for module in MODULES
        if module.name != "__init__.py" and "provider" not in module.parts and module.name not in picture
    ]
    assert missing == []


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
        told = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert told.get("trust_env") == "False", f"line {call.lineno}"
