"""The provider as a process: `python -m src.provider --fail_chance 0.3 --port 9000`.

The exit code is 0 after SIGTERM or Ctrl+C, 2 with one line for an invalid flag, and 3 with the reason if the
provider cannot listen. This module supplies the clock and the random numbers.
"""

import argparse
import asyncio
import contextlib
import random  # noqa: TID251 -- the provider is a separate program and supplies its own
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import uvicorn
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from src.provider.app import create_provider_app
from src.provider.faults import Faults
from src.provider.injection import ConnectionCutError

GRACE_SECONDS = 1
"""The longest time in which running calls must end at shutdown, since a hanging call does not end."""


def main(arguments: Sequence[str]) -> None:
    """Serve until a signal stops the process.

    Args:
        arguments: The flags, without the program's name.

    Raises:
        SystemExit: Always, with the exit code.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises it again once it has shut down
    flags = vars(_parser().parse_args(arguments))
    host, port, seed = flags.pop("host"), flags.pop("port"), flags.pop("seed")
    app = create_provider_app(
        Faults(**flags),
        chance=random.Random(seed).random,  # noqa: S311 -- only draws faults
        now=time.monotonic,  # noqa: TID251
        sleep=asyncio.sleep,  # noqa: TID251
    )
    uvicorn.Server(
        uvicorn.Config(
            _quiet(app), host=host, port=port, lifespan="off", timeout_graceful_shutdown=GRACE_SECONDS
        )
    ).run()


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m src.provider",
        description="A simulated external service that fails on command.",
        argument_default=argparse.SUPPRESS,  # Faults has the defaults
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--fail-chance", "--fail_chance", dest="failure_rate", metavar="RATE", type=_fault("failure_rate"),
        help="share of calls that fail, 0 to 1 (default 0)")  # fmt: skip
    add("--pattern", metavar="SSFFF", type=_fault("pattern"),
        help="outcomes of successive calls, S succeeds and F fails, repeated; replaces the rate")  # fmt: skip
    add("--kind", metavar="status|hang|cut", type=_fault("kind"),
        help="how a call fails (default status)")  # fmt: skip
    add("--status", metavar="CODE", type=_fault("status"),
        help="status of a call that fails, 400 to 599 (default 503)")  # fmt: skip
    add("--latency-ms", "--latency_ms", metavar="MS", type=_fault("latency_ms"),
        help="delay of each call in milliseconds, 0 to 60000 (default 0)")  # fmt: skip
    add("--seed", metavar="N", type=int, default=None, help="makes the failure rate repeatable")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add(
        "--port",
        metavar="N",
        type=_port,
        default=9000,
        help="port to listen on; 0 selects a free port (default 9000)",
    )
    return parser


def _fault(field: str) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            faults = Faults.model_validate_strings({field: text}, strict=False)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(error.errors()[0]["msg"]) from error
        return getattr(faults, field)

    return parse


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError("must be a port, 0 to 65535")
    return int(text)


def _quiet(app: ASGIApp) -> ASGIApp:
    # An intended cut, and a call that still runs at shutdown, must not log a stack trace.
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ConnectionCutError, asyncio.CancelledError):
            await app(scope, receive, send)

    return serve


if __name__ == "__main__":
    main(sys.argv[1:])
