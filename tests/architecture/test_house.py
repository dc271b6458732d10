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
def test_a_module_opens_by_saying_what_it_is_for(module):
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


def test_a_folder_holds_at_most_a_dozen_modules():
    """The modules at the top of the library are its public names, which programs import."""
    modules = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    del modules[Path("src/resilience")]
    assert {folder: count for folder, count in modules.items() if count > 12} == {}


@pytest.mark.parametrize("script", sorted(Path("src").rglob("*.lua")), ids=str)
def test_a_script_opens_by_saying_what_it_decides(script):
    assert script.read_text(encoding="utf-8").startswith("-- ")


def test_the_drawn_tree_of_errors_is_the_tree():
    drawn = set(re.findall(r"\b(\w+Error)\b", inspect.getdoc(errors) or ""))
    defined = {name for name, item in vars(errors).items() if inspect.isclass(item)}
    assert drawn == defined


def test_the_picture_of_the_house_names_every_room():
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
def test_outgoing_calls_go_where_the_settings_say(module):
    """And not to a proxy, nor with a certificate or a credential, out of the environment."""
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
