"""The commands in README and in docs/ work as described and print the shown output."""

import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec

import pytest

from src.storage.redis.embedded.server_binary import find_redis_server
from tests.support.checkout import ROOT, Checkout, installed_checkout
from tests.support.pages import Example, as_script, assert_output, contains_output, read_page

if not (ROOT / "CONTRIBUTING.md").exists():
    pytest.skip("the image leaves some of the pages out", allow_module_level=True)

SERVES = "it serves until it is stopped"
INSTALLS = "it installs packages: tests/end_to_end/test_install.py"
RUNS_TESTS = "it runs the tests"
NEEDS_DOCKER = "it needs Docker"
NEEDS_MEASUREMENTS = "it needs a service with measurements: test_export_api.py, test_transfer_cli.py"


@dataclass(frozen=True, slots=True)
class Run:
    """The settings for running the commands of a page.

    Attributes:
        not_run: The omitted commands, with the reasons.
        settings: Settings of the service; None if the page starts the service itself.
        replaced: Replacements of text in commands.
        volatile: Patterns of output that differs from run to run.
        log: The command whose output holds the page's excerpts of a log.
    """

    not_run: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] | None = None
    replaced: dict[str, str] = field(default_factory=dict)
    volatile: tuple[str, ...] = ()
    log: str = ""


NO_FAULTS = {"EXTERNAL_SERVICE_FAILURE_RATE": "0"}

RUNS = {
    "README.md": Run(
        not_run={
            "./start.sh stop": "the commands below need the service: test_start_script.py",
            "python3 -m venv .venv": INSTALLS,
            ".venv/bin/python scripts/install.py requirements.txt": INSTALLS,
            "REDIS_URL=embedded:// .venv/bin/python -m uvicorn src.main:app": SERVES,
            """docker-compose exec app python -c \\
  "from src.services.external_service import set_failure_rate; print(set_failure_rate(0.1))\"""": (
                "it needs Docker: test_compose.py"
            ),
            "./test.sh": RUNS_TESTS,
            "./test.sh tests/unit -k breaker": RUNS_TESTS,
            "docker-compose run --rm app pytest": "it needs Docker: test_compose.py",
        },
        settings=NO_FAULTS | {"CIRCUIT_BREAKER_RESET_TIMEOUT": "2"},
        replaced={
            "sleep 30": "sleep 2",
            "src.cli demo": "src.cli demo --scenario retry",
            "--scenario all": "--scenario all --interval 0",
        },
    ),
    "CONTRIBUTING.md": Run(
        not_run={
            "./test.sh tests/unit": RUNS_TESTS,
            ".venv/bin/pre-commit install": "it changes the checkout's Git hooks",
        }
    ),
    "docs/api-overview.md": Run(settings=NO_FAULTS),
    "docs/cli.md": Run(
        not_run={
            "python -m src.cli export --output metrics.ndjson.gz": NEEDS_MEASUREMENTS,
            "python -m src.cli export --type cpu --from 2026-01-31T00:00:00Z | head -n 1": (
                NEEDS_MEASUREMENTS
            ),
            "python -m src.cli import --url http://127.0.0.1:8001 metrics.ndjson.gz": NEEDS_MEASUREMENTS,
        }
    ),
    "docs/export.md": Run(
        not_run={
            "curl 'http://localhost:8000/api/metrics/export?type=load&label=host:web-1'": NEEDS_MEASUREMENTS,
            "python -m src.cli export --output metrics.ndjson.gz": NEEDS_MEASUREMENTS,
            "python -m src.cli import metrics.ndjson.gz": NEEDS_MEASUREMENTS,
        }
    ),
    "docs/lab.md": Run(
        not_run={'curl -sN "$API/logs?follow=true"': "it follows the log until it is stopped: test_lab.py"},
        settings=NO_FAULTS | {"CIRCUIT_BREAKER_RESET_TIMEOUT": "8"},
        replaced={
            "sleep 30": "sleep 8",
            "stress?seconds=3": "stress?seconds=1",
            "stress?seconds=5": "stress?seconds=1",
        },
        volatile=(r'"(succeeded|rejected|count)":\d{2,}', r"times=\d+"),
        log="curl -s http://localhost:8000/logs",
    ),
    "docs/metrics.md": Run(settings=NO_FAULTS),
    "docs/performance.md": Run(
        not_run={
            "python -m bench": "it takes minutes",
            "python -m bench --only ingest cached --rounds 3": "it takes minutes",
            "python -m bench --only memory series-day --quick": "it takes minutes",
        }
    ),
    "docs/provider.md": Run(
        not_run={"python -m src.provider --fail_chance 0.3 --port 9000": SERVES}, settings=NO_FAULTS
    ),
    "docs/proxy.md": Run(settings=NO_FAULTS),
    "docs/telemetry.md": Run(
        not_run={"docker run --rm -p 4318:4318 otel/opentelemetry-collector": NEEDS_DOCKER}
    ),
}
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")),
]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="there is no bash here"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
    pytest.mark.skipif(find_redis_server() is None, reason="there is no redis-server here"),
    pytest.mark.skipif(find_spec("pip") is None, reason="there is no pip here, which start.sh needs"),
]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[str, str]]]]:
    """Return the output of each page's commands, and its log. The pages run concurrently."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    pages = {call.params["page"] for call in calls if call is not None and call.params.get("page") in RUNS}
    with ThreadPoolExecutor(len(RUNS)) as threads:
        yield {page: threads.submit(run_page, page) for page in sorted(pages)}


def run_page(page: str) -> tuple[str, str]:
    """Run the commands of a page in a new checkout, and return their output and the log."""
    run = RUNS[page]
    with installed_checkout() as checkout:
        if run.settings is not None:
            started = checkout.start(**run.settings)
            assert started.returncode == 0, started.stdout + started.stderr
        script = with_ports_of_checkout(checkout, as_script(commands_run(page)))
        for old, new in run.replaced.items():
            assert old in script
            script = script.replace(old, new)
        output = checkout.run_script(script)
        log = checkout.run_script(with_ports_of_checkout(checkout, run.log))
        return with_ports_of_page(checkout, output), log


def commands_run(page: str) -> list[Example]:
    """Return the examples of a page without the commands that are not run."""
    examples = []
    for example in examples_of(page):
        commands = f"\n{example.commands.strip()}\n"
        for command in RUNS[page].not_run:
            commands = commands.replace(f"\n{command}\n", "\n")
        if commands.strip():
            # With Docker, plain ./start.sh would start containers.
            commands = commands.replace("\n./start.sh\n", "\n./start.sh --local\n")
            examples.append(Example(example.section, commands, example.output))
    return examples


def examples_of(page: str) -> list[Example]:
    """Return the examples of a page, without the comments of their commands."""
    return [
        Example(example.section, re.sub(r"[ \t]+# .*", "", example.commands), example.output)
        for example in read_page(text_of(page)).examples
    ]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def with_ports_of_checkout(checkout: Checkout, commands: str) -> str:
    commands = commands.replace("localhost:8000", f"localhost:{checkout.port}")
    return re.sub(r"(localhost|127\.0\.0\.1):9000", rf"\1:{checkout.provider_port}", commands)


def with_ports_of_page(checkout: Checkout, output: str) -> str:
    return output.replace(f":{checkout.provider_port}", ":9000").replace(f":{checkout.port}", ":8000")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_run_or_left_out_for_a_reason(page: str) -> None:
    commands = "\n".join(example.commands for example in examples_of(page))
    if page not in RUNS:
        assert commands == "", "add the page to RUNS"
        return
    for command in RUNS[page].not_run:
        assert f"\n{command}\n" in f"\n{commands}\n", "the page no longer has this command"


@pytest.mark.parametrize("page", [page for page in RUNS if commands_run(page)])
def test_the_commands_of_a_page_print_the_shown_output(
    page: str, results: dict[str, Future[tuple[str, str]]]
) -> None:
    output, log = results[page].result()

    assert_output(commands_run(page), output, RUNS[page].volatile)
    if RUNS[page].log:
        for excerpt in read_page(text_of(page)).excerpts:
            assert contains_output(excerpt, log, RUNS[page].volatile), f"the log has no\n{excerpt}\n{log}"
