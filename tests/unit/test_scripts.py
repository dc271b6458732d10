"""The scripts hold together: they parse, and what one says the others say too."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

from src.config.settings import Settings

ROOT = Path(__file__).parents[2]
PAIRS = ["start", "test", "demo"]
SHELL = ["start.sh", "test.sh", "demo.sh", "scripts/environment.sh"]
POWERSHELL = ["start.ps1", "test.ps1", "demo.ps1", "scripts/environment.ps1"]
BASH = shutil.which("bash")

needs_bash = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="there is no bash here")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def bash(
    script: str, *arguments: str, cwd: Path = ROOT, **variables: str
) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(
        [BASH, "-c", script, "bash", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def powershell_errors(source: bytes) -> list[str]:
    tree = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language())).parse(source)

    def walk(node: tree_sitter.Node) -> list[str]:
        if node.is_error or node.is_missing:
            return [f"line {node.start_point.row + 1}: {node.text!r}"]
        return [error for child in node.children for error in walk(child)]

    return walk(tree.root_node)


@needs_bash
@pytest.mark.parametrize("name", SHELL)
def test_shell_scripts_parse(name: str) -> None:
    result = bash('bash -n "$1"', name)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", POWERSHELL)
def test_powershell_scripts_parse(name: str) -> None:
    assert powershell_errors((ROOT / name).read_bytes()) == []


def test_a_broken_powershell_script_would_be_found() -> None:
    assert powershell_errors(b"function Broken { if ($true { }") != []


@pytest.mark.parametrize("name", PAIRS)
def test_both_scripts_tell_of_the_same_uses(name: str) -> None:
    def uses(ending: str) -> list[str]:
        head = text(f"{name}.{ending}").split("set -euo" if ending == "sh" else "$ErrorActionPreference")[0]
        return [
            use.replace(".sh", "").replace(".ps1", "")
            for use in re.findall(r"^#   (\./\S+(?: \S+)*)", head, re.MULTILINE)
        ]

    assert uses("sh") == uses("ps1") != []


@pytest.mark.parametrize("name", PAIRS)
def test_both_scripts_know_the_same_flags_and_variables(name: str) -> None:
    def words(ending: str) -> set[str]:
        source = text(f"{name}.{ending}")
        flags = set(re.findall(r"--(?:local|no-pause|base-url|require-hashes)\b", source))
        variables = set(
            re.findall(
                r"\b(?:APP_PORT|PROVIDER_PORT|BASE_URL|ADMIN_API_KEY|REDIS_\w+|EXTERNAL_\w+)\b", source
            )
        )
        return flags | variables

    assert words("sh") == words("ps1")


def test_both_tours_take_the_same_steps_and_ask_for_the_same_things() -> None:
    def steps(ending: str) -> list[str]:
        source = text(f"demo.{ending}").replace("→", "->")
        return re.findall(r"^\s*(?:step|Write-Step) ['\"](.+)['\"] ['\"](.+)['\"]$", source, re.MULTILINE)

    def paths(ending: str) -> set[str]:
        return set(re.findall(r"/(?:api|health)[\w/-]*", text(f"demo.{ending}")))

    assert steps("sh") == steps("ps1") != []
    assert paths("sh") == paths("ps1") != set()


# ------------------------------------------------------------------ settings and Python

SETTING = '. scripts/environment.sh; cd "$1"; setting "$2" "$3"'


@needs_bash
@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("APP_PORT=8001", "8001"),
        ("export APP_PORT = 8001", "8001"),
        ("APP_PORT='8001'", "8001"),
        ('APP_PORT="8001"  # mine', "8001"),
        ("APP_PORT=", "8000"),
        ("# APP_PORT=8001", "8000"),
        ("MY_APP_PORT=8001", "8000"),
    ],
)
def test_a_setting_is_read_from_dotenv(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"LOG_LEVEL=INFO\n{line}\n")

    assert bash(SETTING, str(tmp_path), "APP_PORT", "8000").stdout == f"{value}\n"


@needs_bash
def test_the_environment_wins_over_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_PORT=8001\n")

    assert bash(SETTING, str(tmp_path), "APP_PORT", "8000", APP_PORT="8002").stdout == "8002\n"


@needs_bash
def test_a_command_that_runs_nothing_is_passed_over(tmp_path: Path) -> None:
    for name, body in {"python3.12": "exit 127", "python3": f'exec "{sys.executable}" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    assert bash(". scripts/environment.sh; find_python", PATH=str(tmp_path)).stdout == "python3\n"


@needs_bash
def test_no_python_at_all_is_said(tmp_path: Path) -> None:
    result = bash(
        ". scripts/environment.sh; make_venv requirements.txt",
        PATH=str(tmp_path),
        VENV=str(tmp_path / "venv"),
    )

    assert result.returncode != 0
    assert "No Python >= 3.11 on PATH" in result.stderr


# ------------------------------------------------------------------ pins, containers


def pinned(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text(name), re.MULTILINE))


def declared(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def test_every_dependency_is_pinned_and_both_files_pin_the_same() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    run, dev = pinned("requirements.txt"), pinned("requirements-dev.txt")

    assert declared(project["project"]["dependencies"]) <= run.keys()
    assert declared(project["dependency-groups"]["dev"]) <= dev.keys()
    assert run.items() <= dev.items()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_pins_carry_hashes_and_name_no_index(name: str) -> None:
    assert not re.findall(r"^[\w.-]+==[^\\]*$", text(name), re.MULTILINE), "a pin without a hash"
    assert not re.findall(r"://|--index|--extra|--find", text(name))


def test_compose_hands_every_setting_to_the_app() -> None:
    handed = set(re.findall(r"^      ([A-Z][A-Z_]+):", text("docker-compose.yml"), re.MULTILINE))
    known = {name.upper() for name in Settings.model_fields}
    # REDIS_URL stands for the other four; the failure rate is the provider's, as a flag
    given_otherwise = {
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_DB",
        "REDIS_PASSWORD",
        "EXTERNAL_SERVICE_FAILURE_RATE",
    }

    assert known - given_otherwise == handed - {"REQUIREMENTS"}
