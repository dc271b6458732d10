"""The files for readers and contributors match the project."""

import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the development requirements")
pytestmark = pytest.mark.skipif(
    not Path("CONTRIBUTING.md").exists(), reason="the image leaves these files out"
)

README = Path("README.md").read_text(encoding="utf-8")
COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_every_command_of_the_portuguese_readme_is_in_readme():
    lines = {line.strip() for block in COMMANDS.findall(README) for line in block.splitlines()}
    translated = Path("README.pt-BR.md").read_text(encoding="utf-8")
    mine = [line.strip() for block in COMMANDS.findall(translated) for line in block.splitlines()]
    assert [line for line in mine if line not in lines] == []


@pytest.mark.parametrize(
    "page", ["README.md", "README.pt-BR.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
)
def test_links_to_files_are_valid(page):
    text = Path(page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [target for target in targets if not Path(target).exists()] == []


def test_pre_commit_runs_the_checks_of_ci():
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    ci = Path(".ci/run").read_text(encoding="utf-8")
    programs = {Path(hook["entry"].split()[0]).name for hook in hooks}
    assert programs == {"ruff", "mypy", "lint-imports", "shellcheck"}
    assert all(program in ci for program in programs)


def test_contributing_names_every_folder_of_tests():
    page = Path("CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = [path for path in Path("tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))]
    folders += [path for path in Path("tests").iterdir() if path.is_dir() and any(path.glob("*/test_*.py"))]
    assert [str(path) for path in folders if f"`{path}`" not in page] == []


def test_pre_commit_is_a_pinned_development_dependency():
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    assert any("pre-commit" in str(item) for item in project["dependency-groups"]["dev"])
    assert "\npre-commit==" in Path("requirements-dev.txt").read_text(encoding="utf-8")
