"""The page of private parts lists every private part of other libraries that the code uses, with its test."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PAGE = Path("docs/private-parts.md")
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the image leaves the page out")

MODULES = sorted(Path("src").rglob("*.py"))
PUBLIC_METHODS = {"_replace", "_asdict", "_fields", "_make"}
"""Documented methods of named tuples."""


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@cache
def tree_of(module):
    return ast.parse(module.read_text(encoding="utf-8"))


def imported_modules(module):
    """Yield the modules of `src` that `module` imports names from."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            folder = module.parents[node.level - 1] if node.level else Path()
            target = folder.joinpath(*(node.module or "").split("."))
            names = [target, *(target / alias.name for alias in node.names)]
            yield from (path for name in names if (path := name.with_suffix(".py")).is_file())


@cache
def names_defined(module):
    """Return the private names that `module` assigns or defines, and those of the modules that it imports."""
    names = set()
    for node in ast.walk(tree_of(module)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Attribute(ctx=ast.Store()):
                names.add(node.attr)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
    return names.union(*map(names_defined, imported_modules(module)))


def private_parts(module):
    """Return the private names that `module` uses, and that no module of this project defines."""
    names = set()
    for node in ast.walk(tree_of(module)):
        match node:
            case ast.Attribute(ctx=ast.Load()) if is_private(node.attr):
                names.add(node.attr)
            case ast.ImportFrom(level=0) if not (node.module or "").startswith("src"):
                names |= {name for name in (node.module or "").split(".") if is_private(name)}
                names |= {alias.name for alias in node.names if is_private(alias.name)}
    return names - names_defined(module) - PUBLIC_METHODS


def test_the_page_lists_every_private_part_that_is_used():
    listed = set(re.findall(r"\b_[a-z]\w*", PAGE.read_text(encoding="utf-8")))
    used = {(str(module), name) for module in MODULES for name in private_parts(module)}
    assert {(module, name) for module, name in used if name not in listed} == set()
    assert {name for _, name in used} >= {"_writer", "_upper_bounds", "_route_selected"}, (
        "the search finds no private part"
    )


def test_each_row_names_a_test_that_exists():
    rows = [row.split(" | ") for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    tests = {row[-1].strip(" |`") for row in rows[2:]} - {"the same"}
    assert tests
    assert [test for test in tests if not Path(test).is_file()] == []
