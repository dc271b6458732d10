"""`python -m src.cli demo` and `python -m src.cli experiment`.

The exit code is 0 after success, 1 if the experiment finds no provider, 2 with one line for an invalid flag,
130 after Ctrl-C and 143 after SIGTERM. After a signal the experiment still prints its results and restores
the provider's faults.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console

from src.cli.demo import SCENARIOS, run_demo
from src.cli.experiment import (
    ExperimentOptions,
    ProviderUnreachableError,
    Scenario,
    run_experiment,
)
from src.resilience import SystemClock, SystemRandomizer


def main(arguments: Sequence[str]) -> None:
    """Run the command of the command line.

    Args:
        arguments: The flags, without the program's name.

    Raises:
        SystemExit: The exit code is not 0.
    """
    parser = _parser()
    flags = vars(parser.parse_args(arguments))
    command, seed = flags.pop("command"), flags.pop("seed")
    console = Console(markup=False, emoji=False, highlight=False)
    clock = SystemClock()
    try:
        if command == "demo":
            asyncio.run(run_demo(flags["scenario"], console, clock, seed))
            return
        asyncio.run(run_experiment(_options(parser, flags), console, clock, SystemRandomizer(seed)))
    except ProviderUnreachableError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _options(parser: argparse.ArgumentParser, flags: dict[str, Any]) -> ExperimentOptions:
    try:
        return ExperimentOptions(**flags)
    except ValueError as error:
        parser.error(str(error))


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m src.cli", description="The patterns at a terminal.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="demo|experiment", required=True)
    _add_demo(commands.add_parser("demo", help="show each pattern, step by step", allow_abbrev=False))
    _add_experiment(
        commands.add_parser(
            "experiment",
            help="call a provider repeatedly through a circuit breaker",
            argument_default=argparse.SUPPRESS,  # ExperimentOptions has the defaults
            allow_abbrev=False,
        )
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
