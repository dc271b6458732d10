"""The scripts have no syntax errors, and agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_powershell

from scripts.install import UV_VARIABLES, has_cache, pip_configuration, uv_environment
from src.config.settings import Settings
from src.server.options import longest_stop_seconds
from src.storage.redis.embedded.embedded_redis import STOP_GRACE_SECONDS
from src.telemetry.tracing import LAST_EXPORT_SECONDS
from tests.support.server import Server

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
def test_shell_scripts_have_no_syntax_errors(name: str) -> None:
    result = bash('bash -n "$1"', name)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", POWERSHELL)
def test_powershell_scripts_have_no_syntax_errors(name: str) -> None:
    assert powershell_errors((ROOT / name).read_bytes()) == []


def test_the_powershell_check_finds_a_syntax_error() -> None:
    assert powershell_errors(b"function Broken { if ($true { }") != []


@pytest.mark.parametrize("name", PAIRS)
def test_both_scripts_document_the_same_commands(name: str) -> None:
    def uses(ending: str) -> list[str]:
        head = text(f"{name}.{ending}").split("set -euo" if ending == "sh" else "$ErrorActionPreference")[0]
        return [
            use.replace(".sh", "").replace(".ps1", "")
            for use in re.findall(r"^#   (\./\S+(?: \S+)*)", head, re.MULTILINE)
        ]

    assert uses("sh") == uses("ps1") != []


@pytest.mark.parametrize("name", PAIRS)
def test_both_scripts_have_the_same_flags_and_variables(name: str) -> None:
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


def test_both_tours_have_the_same_steps_and_requests() -> None:
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
@pytest.mark.parametrize("line", ["APP_PORT=8001", "export APP_PORT=8001"])
def test_a_byte_order_mark_does_not_hide_the_first_setting(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"{line}\r\nLOG_LEVEL=INFO\r\n", encoding="utf-8-sig", newline="")

    assert bash(SETTING, str(tmp_path), "APP_PORT", "8000").stdout == "8001\n"


def test_powershell_accepts_a_byte_order_mark_too() -> None:
    [pattern] = re.findall(
        r'Select-String -Path .env -Pattern "(.+)"$', text("scripts/environment.ps1"), re.MULTILINE
    )
    first_line = "\ufeffAPP_PORT=8001"

    assert re.search(pattern.replace("$Name", "APP_PORT"), first_line)[1] == "8001"


@needs_bash
def test_the_environment_overrides_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_PORT=8001\n")

    assert bash(SETTING, str(tmp_path), "APP_PORT", "8000", APP_PORT="8002").stdout == "8002\n"


def test_the_servers_of_the_tests_do_not_read_the_env_file_that_start_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, object]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda _command, **options: started.append(options))

    server = Server("redis://nowhere", tmp_path)
    server._output.close()

    assert [options["cwd"] for options in started] == [tmp_path]


@needs_bash
def test_a_python_command_that_does_not_work_is_skipped(tmp_path: Path) -> None:
    for name, body in {"python3.12": "exit 127", "python3": f'exec "{sys.executable}" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    assert bash(". scripts/environment.sh; find_python", PATH=str(tmp_path)).stdout == "python3\n"


@needs_bash
def test_a_missing_python_is_reported(tmp_path: Path) -> None:
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


REQUIREMENTS = ["requirements.txt", "requirements-test.txt", "requirements-dev.txt"]
"""From the smallest to the largest."""


def test_every_dependency_is_pinned_and_all_files_pin_the_same() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    run, test, dev = map(pinned, REQUIREMENTS)
    groups = project["dependency-groups"]

    assert declared(groups["service"]) <= run.keys()
    assert declared([name for name in groups["test"] if isinstance(name, str)]) <= test.keys()
    assert declared([name for name in groups["dev"] if isinstance(name, str)]) <= dev.keys()
    assert run.items() <= test.items() <= dev.items()


def test_the_image_of_compose_adds_no_browser_driver_type_checker_or_linter() -> None:
    test, dev = pinned("requirements-test.txt"), pinned("requirements-dev.txt")

    assert dev.keys() - test.keys() >= {
        "playwright",
        "axe-playwright-python",
        "mypy",
        "ruff",
        "import-linter",
    }


@pytest.mark.parametrize("name", [*REQUIREMENTS, "requirements-installer.txt"])
def test_pins_carry_hashes_and_name_no_index(name: str) -> None:
    assert not re.findall(r"^[\w.-]+==[^\\]*$", text(name), re.MULTILINE), "a pin without a hash"
    assert not re.findall(r"://|--index|--extra|--find", text(name))


def test_the_image_is_built_for_the_same_python_with_and_without_compose() -> None:
    [of_the_image] = re.findall(r"^ARG PYTHON_VERSION=(.+)$", text("Dockerfile"), re.MULTILINE)
    [of_compose] = re.findall(r"PYTHON_VERSION: \$\{PYTHON_VERSION:-(.+)\}", text("docker-compose.yml"))

    assert of_the_image == of_compose


@pytest.mark.parametrize(
    "name",
    [
        "docker-compose.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/nightly.yml",
        ".pre-commit-config.yaml",
    ],
)
def test_no_mapping_of_a_yaml_file_repeats_a_key(name: str) -> None:
    """Compose v2 and GitHub refuse a repeated key, while docker-compose 1.29 takes the last one."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the development requirements")
    nodes = [yaml.compose(text(name))]
    repeated = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            repeated += [key for key in keys if keys.count(key) > 1]
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value

    assert repeated == []


def passed_variables() -> set[str]:
    environment = text("docker-compose.yml").split("    environment:\n")[1].split("    depends_on:\n")[0]
    return set(re.findall(r"^      ([A-Z][A-Z_]+):", environment, re.MULTILINE))


def test_compose_passes_every_setting_to_the_app() -> None:
    known = {name.upper() for name in Settings.model_fields}
    # REDIS_URL replaces four settings. The sync policy and the failure rate are flags of other programs.
    given_otherwise = {
        "REDIS_APPENDFSYNC",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_DB",
        "REDIS_PASSWORD",
        "EXTERNAL_SERVICE_FAILURE_RATE",
    }

    assert known - given_otherwise == {name for name in passed_variables() if not name.startswith("OTEL_")}
    default = Settings.model_fields["redis_appendfsync"].default
    assert f'"--appendfsync", "${{REDIS_APPENDFSYNC:-{default}}}"' in text("docker-compose.yml")


def test_compose_passes_every_variable_of_the_telemetry_page_to_the_app() -> None:
    documented = set(re.findall(r"`(OTEL_[A-Z_]+)", text("docs/telemetry.md")))

    assert documented - {"OTEL_"} <= passed_variables()


def test_a_container_is_not_killed_while_the_service_still_stops() -> None:
    delay, timeout = (
        Settings.model_fields[name].default for name in ("shutdown_delay_seconds", "shutdown_timeout_seconds")
    )
    longest = longest_stop_seconds(delay, timeout) + LAST_EXPORT_SECONDS
    given = re.findall(r"stop_grace_period: (\d+)s", text("docker-compose.yml"))
    [waited] = re.findall(r"STOP_LIMIT_SECONDS=(\d+)", text("start.sh"))

    assert int(given[0]) > longest
    assert int(waited) > longest + 2 * STOP_GRACE_SECONDS, "an embedded Redis stops too"


# ------------------------------------------------------------------ arguments for uv


def test_uv_uses_the_index_of_pips_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in UV_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    listing = """
:env:.cert='/etc/ssl/mirror.pem'
:env:.index-url=''
global.extra-index-url='\\nhttps://one.example/simple\\nhttps://two.example/simple'
global.find-links='/wheels /more'
global.index-url='https://global.example/simple'
install.index-url='https://user:word@mirror.example/simple'
install.trusted-host='mirror.example'
list.format='columns'
"""

    given = uv_environment(pip_configuration(listing))

    assert given == dict(os.environ) | {
        "SSL_CERT_FILE": "/etc/ssl/mirror.pem",
        "UV_DEFAULT_INDEX": "https://user:word@mirror.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INSECURE_HOST": "mirror.example",
    }


def test_variables_of_uv_override_the_configuration_of_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")

    given = uv_environment({"index-url": "https://pip.example/simple"})

    assert given["UV_DEFAULT_INDEX"] == "https://uv.example/simple"


def test_pip_lists_its_configuration_as_install_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    if pip.returncode != 0:
        pytest.skip("there is no pip here")

    assert pip_configuration(pip.stdout)["index-url"] == "https://mirror.example/simple"


@pytest.mark.skipif(find_spec("uv") is None, reason="there is no uv here")
def test_no_cache_is_used_if_its_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert not has_cache()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert has_cache()
