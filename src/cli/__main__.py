"""`python -m src.cli demo`, `experiment`, `export` and `import`.

The exit code is 0 after success, 1 if the experiment finds no provider or an export or import is incomplete,
2 with one line for an invalid flag, 3 if the service rejected points of an import, 130 after Ctrl-C and
143 after SIGTERM.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from rich.console import Console

from src.cli.demo import SCENARIOS, run_demo
from src.cli.experiment import (
    ExperimentOptions,
    ProviderUnreachableError,
    Scenario,
    run_experiment,
)
from src.cli.transfer.exporting import STANDARD, ExportOptions, run_export
from src.cli.transfer.importing import ImportOptions, run_import
from src.cli.transfer.service_client import DEFAULT_URL, TransferError
from src.resilience import SystemClock
from src.resilience.clock import SystemRandomizer

API_KEY_VARIABLE = "RESILIENT_ANALYTICS_API_KEY"

POINTS_REJECTED = 3
"""The exit code of an import of which the service rejected points."""


def main(arguments: Sequence[str]) -> None:
    """Run the command of the command line.

    Args:
        arguments: The flags, without the program's name.

    Raises:
        SystemExit: The exit code is not 0.
    """
    parser = _parser()
    flags = vars(parser.parse_args(arguments))
    try:
        run = _COMMANDS[flags.pop("command")](flags)
    except ValueError as error:
        parser.error(str(error))
    try:
        exit_code = asyncio.run(run)
    except (ProviderUnreachableError, TransferError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter would flush into it
        raise SystemExit(f"{parser.prog}: standard output was closed") from None
    except KeyboardInterrupt:
        exit_code = 128 + signal.SIGINT
    if exit_code:
        sys.exit(exit_code)


_Flags = dict[str, Any]
_Run = Coroutine[Any, Any, int | None]


def _demo(flags: _Flags) -> _Run:
    return run_demo(flags["scenario"], _console(), SystemClock(), flags["seed"])


def _experiment(flags: _Flags) -> _Run:
    randomizer = SystemRandomizer(flags.pop("seed"))
    return run_experiment(ExperimentOptions(**flags), _console(), SystemClock(), randomizer)


def _export(flags: _Flags) -> _Run:
    flags["label"] = tuple(flags.get("label", ()))
    options = ExportOptions(**_with_key(flags))
    return run_export(options, _console(stderr=True), SystemClock(), sys.stdout.buffer)


def _import(flags: _Flags) -> _Run:
    return _import_all(ImportOptions(**_with_key(flags)))


async def _import_all(options: ImportOptions) -> int:
    rejected = await run_import(options, _console(stderr=True), SystemClock(), sys.stdin.buffer)
    return POINTS_REJECTED if rejected else 0


_COMMANDS: dict[str, Callable[[_Flags], _Run]] = {
    "demo": _demo, "experiment": _experiment, "export": _export, "import": _import,
}  # fmt: skip


def _console(*, stderr: bool = False) -> Console:
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=stderr, stderr=stderr)


def _with_key(flags: _Flags) -> _Flags:
    """Return `flags` with the key of the environment, if there is none among them."""
    return {"api_key": os.environ.get(API_KEY_VARIABLE) or None} | flags


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m src.cli",
        description="Patterns and metrics at a terminal.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="|".join(_COMMANDS), required=True)
    _add_demo(commands.add_parser("demo", help="show each pattern, step by step", allow_abbrev=False))
    _add_experiment(
        commands.add_parser(
            "experiment",
            help="call a provider repeatedly through a circuit breaker",
            argument_default=argparse.SUPPRESS,  # ExperimentOptions has the defaults
            allow_abbrev=False,
        )
    )
    for name, text, add_flags in (
        ("export", "metrics from a running service to a file", _add_export),
        ("import", "metrics from a file into a running service", _add_import),
    ):
        add_flags(
            commands.add_parser(name, help=text, argument_default=argparse.SUPPRESS, allow_abbrev=False)
        )
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scenario", metavar="|".join(SCENARIOS), type=_demo_scenario, default=tuple(SCENARIOS),
        help="run only this scenario")  # fmt: skip
    add("--seed", metavar="N", type=int, default=None, help="makes the random waits repeatable")


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, ExperimentOptions()
    add("--fail-max", "--fail_max", metavar="N", type=int,
        help=f"consecutive failures that open the breaker (default {default.fail_max})")  # fmt: skip
    add("--reset-timeout", "--reset_timeout", metavar="SECONDS", type=float,
        help=f"time the breaker stays open (default {default.reset_timeout:g})")  # fmt: skip
    add("--number-requests", "--number_requests", metavar="N", type=int,
        help=f"number of calls (default {default.number_requests})")  # fmt: skip
    add("--interval", metavar="SECONDS", type=float,
        help=f"time between two calls (default {default.interval:g})")  # fmt: skip
    add("--timeout", metavar="SECONDS", type=float,
        help=f"longest time of a call (default {default.timeout:g})")  # fmt: skip
    add("--url", metavar="URL", help="URL of the provider (default: a provider in this process)")
    add("--scenario", metavar="|".join(Scenario), type=_experiment_scenario,
        help="faults of the provider (default: sporadic; with --url, its own faults)")  # fmt: skip
    add("--seed", metavar="N", type=int, default=None, help="makes the sporadic failures repeatable")


def _add_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--type", metavar="TYPE", help="the metric type (default: all)")
    add("--from", dest="from_", metavar="TIME", help="the first instant, RFC 3339 (default: the beginning)")
    add("--to", metavar="TIME", help="the instant after the last, RFC 3339 (default: the end)")
    add("--label", metavar="NAME:VALUE", action="append", help="only series with this label; repeatable")
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="the file; .gz at its end means gzip (default: standard output)",
    )
    _add_service(parser)


def _add_import(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, ImportOptions(file=STANDARD)
    add("file", metavar="FILE", help="a point a line; .gz at its end means gzip; - is standard input")
    add("--batch-points", "--batch_points", metavar="N", type=int,
        help=f"points sent at once (default {default.batch_points})")  # fmt: skip
    _add_service(parser)


def _add_service(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--url", metavar="URL", help=f"the service (default {DEFAULT_URL})")
    add(
        "--api-key", "--api_key", metavar="KEY", help=f"its key (default: that of {API_KEY_VARIABLE}, if set)"
    )


def _demo_scenario(text: str) -> tuple[str]:
    if text not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(SCENARIOS)}")
    return (text,)


def _experiment_scenario(text: str) -> Scenario:
    try:
        return Scenario(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(Scenario)}") from None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main(sys.argv[1:])
