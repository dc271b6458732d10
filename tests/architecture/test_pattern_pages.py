"""The pages of the patterns match the code."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import src.resilience as package
from src.resilience import retry
from src.resilience.building_blocks.permit import BlockPolicy
from src.resilience.events import Event
from src.resilience.policy import BasePolicy, SyncPolicy
from tests.support.library import PUBLIC

FOLDER = Path("src/resilience/docs")
GUIDES = [FOLDER / f"{name}.md" for name in ("fastapi", "httpx", "observing", "testing")]
"""Pages on the use of the patterns. Each contains the output of its sample."""

PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md" and path not in GUIDES)
SECTIONS = ["Options", "Events", "Sample", "When not to use it", "Sources"]
COMMON_ARGUMENTS = {"clock", "randomizer", "listener", "name"}
"""Arguments of every policy, which the tables do not repeat."""

EVENTS = {name for name, kind in PUBLIC.items() if inspect.isclass(kind) and issubclass(kind, Event)}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text_of(page):
    return page.read_text(encoding="utf-8")


def section(page, title):
    return re.split(r"^## ", text_of(page).split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def tables(page):
    """Yield, for each table of options: the class, and its rows as (option, default)."""
    for part in section(page, "Options").split("\n### ")[1:]:
        name = re.match(r"`(\w+)`", part)[1]
        yield PUBLIC[name], re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", part, re.MULTILINE)


def default_of(parameter):
    has_none = parameter.default is parameter.empty or parameter.kind is parameter.VAR_POSITIONAL
    return "required" if has_none else parameter.default


@pages
def test_a_page_has_a_diagram_and_every_section(page):
    assert re.findall(r"^## (.+)$", text_of(page), re.MULTILINE) == SECTIONS
    assert "```mermaid" in text_of(page)


@pages
def test_the_tables_of_options_match_the_code(page):
    names = vars(builtins) | PUBLIC | vars(retry)
    for kind, rows in tables(page):
        parameters = inspect.signature(kind).parameters
        expected = {
            name: default_of(parameter)
            for name, parameter in parameters.items()
            if name not in COMMON_ARGUMENTS
        }
        documented = {
            option: default if default == "required" else eval(default.strip("`"), names)
            for option, default in rows
        }
        assert documented == expected, kind.__name__
        assert list(documented) == list(expected), "the headings are in another order"


def test_every_class_of_options_has_a_table():
    documented = {kind.__name__ for page in PAGES for kind, _ in tables(page)}
    options = {name for name, kind in PUBLIC.items() if name.endswith("Options") and is_dataclass(kind)}
    assert options <= documented


@pages
def test_a_page_names_every_event_of_its_pattern(page):
    pattern = Path("src/resilience") / page.stem.replace("-", "_")
    imported = {
        alias.name
        for module in [*pattern.glob("*.py")] or [pattern.with_suffix(".py")]
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "events"
        for alias in node.names
    }
    assert imported & EVENTS <= set(re.findall(r"`(\w+)`", section(page, "Events")))


def test_every_event_is_documented():
    documented = {name for page in PAGES for name in re.findall(r"`(\w+)`", section(page, "Events"))}
    documented |= set(re.findall(r"`(\w+)`", text_of(FOLDER / "observing.md")))
    assert documented >= EVENTS - {"Event"}


async def run_sample(page, title):
    [sample] = re.findall(r"```python\n(.*?)```", section(page, title), re.DOTALL)
    code = compile(sample, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, {"__name__": page.stem})
    if inspect.iscoroutine(outcome):
        await outcome


def ways_to_call(page):
    """Return the names in code style of the page's line about the ways to call."""
    _, line = text_of(page).split("\n[Ways to call](README.md#ways-to-call): ")
    return re.findall(r"`([^`]+)`", line.split("\n\n")[0])


@pages
def test_the_ways_to_call_match_the_code(page):
    names = ways_to_call(page)
    name = {"cache": "ReadThroughCache", "rate-limiter": "RateLimit"}.get(page.stem)
    policy = PUBLIC[name or page.stem.title().replace("-", "")]
    documented = {
        BasePolicy: "run" in names,
        BlockPolicy: any(name.startswith("async with") for name in names),
        SyncPolicy: "run_sync" in names,
    }
    assert {kind: issubclass(policy, kind) for kind in documented} == documented
    options = [re.findall(r"\w+", name)[1:] for name in names if name.startswith("with_options")]
    has_options = hasattr(policy, "with_options")
    assert options == ([[*inspect.signature(policy.with_options).parameters][1:]] if has_options else [])


@pytest.mark.parametrize(
    ("page", "title"),
    [(FOLDER / "README.md", "Ways to call"), *((page, "Sample") for page in [*PAGES, *GUIDES])],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
async def test_a_sample_prints_what_its_page_shows(page, title, capsys):
    await run_sample(page, title)
    [shown] = re.findall(r"```text\n(.*?)```", section(page, title), re.DOTALL)
    assert capsys.readouterr().out == shown


every_page = pytest.mark.parametrize("page", [*PAGES, *GUIDES], ids=lambda page: page.stem)


@every_page
def test_the_index_links_to_every_page(page):
    assert f"({page.name})" in text_of(FOLDER / "README.md")


def test_every_policy_has_a_page():
    titles = {text_of(page).splitlines()[0].removeprefix("# ").lower().replace(" ", "") for page in PAGES}
    policies = {
        module.name.split(".")[2].replace("_", "")
        for module in pkgutil.walk_packages(package.__path__, "src.resilience.")
        if not module.name.startswith("src.resilience.redis.")  # these run scripts
        and any(
            item.__module__ == module.name and inspect.iscoroutinefunction(getattr(item, "run", None))
            for item in vars(importlib.import_module(module.name)).values()
            if inspect.isclass(item)
            and not getattr(item, "_is_protocol", False)
            and not inspect.isabstract(item)
        )
    }
    assert policies <= titles


@pytest.mark.parametrize(
    "page", [*PAGES, *GUIDES, FOLDER / "README.md", FOLDER.parent / "README.md"], ids=str
)
def test_links_are_valid(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page))
    assert [link for link in links if not (page.parent / link).exists()] == []
